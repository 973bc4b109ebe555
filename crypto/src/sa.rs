//! Security associations: one direction's key state in one epoch.

use std::sync::OnceLock;

use zeroize::Zeroizing;

use crate::{
    AAD_LEN, Commits, Context, CryptoError, Fingerprint, Key, LaneOwner, Lanes, MAX_COUNTER,
    MAX_LANES, Nonce, Packet, Provider, Replay, Seal, Secret, Suite,
    counter::Counters,
    kdf,
    prefetch::prefetch,
    replay::{BUCKET_BITS, Window},
};

/// The smallest replay window, in counters.
pub const MIN_WINDOW_BITS: u32 = 2048;
/// The largest replay window, in counters.
pub const MAX_WINDOW_BITS: u32 = 1 << 20;

/// A transmit SA: a key, and the counters that make its nonces unique. What every packet needs is one cache line.
#[repr(C, align(64))]
pub struct SealSa {
    key: Keyed,
    counters: Counters,
    fingerprint: Fingerprint,
}

impl SealSa {
    /// Derives the key for this context, with a counter a lane at zero that ends before `limit`.
    ///
    /// The same secret and context must never be used to seal by another `SealSa`, in this run or
    /// any other, for its nonces would repeat: see [`BurnGuard`](crate::BurnGuard).
    ///
    /// # Errors
    /// [`CryptoError::CounterLimit`] unless the limit is 1 to [`MAX_COUNTER`], and what the
    /// provider says.
    pub fn new(
        provider: &dyn Provider,
        secret: &Secret,
        context: Context,
        lanes: Lanes,
        limit: u64,
    ) -> Result<Self, CryptoError> {
        if !(1..=MAX_COUNTER).contains(&limit) {
            return Err(CryptoError::CounterLimit(limit));
        }
        Ok(Self {
            key: Keyed::new(provider, secret, context)?,
            fingerprint: secret.fingerprint(),
            counters: Counters::new(lanes, limit),
        })
    }

    /// The first of `n` consecutive counters of the lane, which nobody else gets.
    ///
    /// None when the lane is not the owner's, or not of this SA, `n` is zero, or fewer than `n` are
    /// left below the limit. The last closes the lane: it hands out nothing more, not even the few that were left, and
    /// the SA counts as [`exhausted`](Self::exhausted).
    #[inline]
    #[must_use]
    pub fn reserve(&self, owner: &LaneOwner, lane: u8, n: u32) -> Option<u64> {
        self.counters.reserve(owner, lane, n)
    }

    /// Asks the processor for what [`SealSa::prefetch`] reads of this.
    #[inline(always)]
    pub fn prefetch_self(&self) {
        prefetch(self);
    }

    /// Asks the processor for what sealing `len` bytes of data reads first: some packets before they are sealed.
    #[inline(always)]
    pub fn prefetch(&self, lane: u8, len: usize) {
        self.key.key.prefetch(len);
        self.counters.prefetch(lane);
    }

    /// The nonce for a counter of a lane: the static IV xor (lane as u32, counter as u64), in
    /// network byte order.
    #[inline]
    #[must_use]
    pub fn nonce(&self, lane: u8, counter: u64) -> Nonce {
        self.key.nonce(lane, counter)
    }

    /// A packet to [`seal`](crate::seal). The counter must have been reserved, and be used once.
    #[inline]
    #[must_use]
    pub fn packet<'a>(
        &'a self,
        lane: u8,
        counter: u64,
        aad: [u8; AAD_LEN],
        data: &'a mut [u8],
    ) -> Packet<'a> {
        self.key.packet(lane, counter, aad, data)
    }

    /// The inner seal of a [`Layered`](crate::Layered). The counter must have been reserved, and be used
    /// once.
    #[inline]
    #[must_use]
    pub fn seal(&self, lane: u8, counter: u64, aad: [u8; AAD_LEN]) -> Seal<'_> {
        Seal {
            key: &self.key.key,
            nonce: self.key.nonce(lane, counter),
            aad,
        }
    }

    /// The counters used up so far, over all lanes. Exact when nothing is sealing.
    #[must_use]
    pub fn sealed(&self) -> u64 {
        self.counters.sum()
    }

    /// Seals nothing more, in any lane, from now on. There is no way back: it counts as [`exhausted`](Self::exhausted).
    /// A batch that has reserved its counters is sealed still.
    pub fn stop(&self) {
        self.counters.stop();
    }

    /// Whether a lane has come to its limit and seals nothing more.
    #[must_use]
    pub fn exhausted(&self) -> bool {
        self.counters.highest() >= self.counters.limit()
    }

    /// Whether a lane has used seven eighths of its counters, so that it is time for the next
    /// epoch.
    #[must_use]
    pub fn nearly_exhausted(&self) -> bool {
        let limit = self.counters.limit();
        self.counters.highest() >= limit - limit / 8
    }

    /// The number of lanes.
    #[must_use]
    pub fn lanes(&self) -> u16 {
        self.counters.lanes()
    }

    /// The epoch that the key was derived for.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.key.epoch
    }

    /// The algorithm.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.key.key.suite()
    }

    /// The name of the secret that the key was derived from.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

/// A receive SA: a key, and a replay window for every lane that has sent something. What every packet needs begins with it.
#[repr(C, align(64))]
pub struct OpenSa {
    key: Keyed,
    windows: Windows,
    window_bits: u32,
}

/// The window of each lane, empty until its first packet has verified: nobody without the key makes us allocate.
struct Windows {
    /// Of the first lanes, which are most senders' only ones: with no other place to look at in between.
    first: [OnceLock<Window>; NEAR],
    rest: OnceLock<Box<[OnceLock<Window>; MAX_LANES as usize - NEAR]>>,
}

/// Lanes whose windows are found without a detour.
const NEAR: usize = 8;

impl OpenSa {
    /// Derives the key for this context, with a replay window of `window_bits` counters for each
    /// lane.
    ///
    /// # Errors
    /// [`CryptoError::WindowBits`] unless the window is a power of two from [`MIN_WINDOW_BITS`] to
    /// [`MAX_WINDOW_BITS`], and what the provider says.
    pub fn new(
        provider: &dyn Provider,
        secret: &Secret,
        context: Context,
        window_bits: u32,
    ) -> Result<Self, CryptoError> {
        if !window_bits.is_power_of_two()
            || !(MIN_WINDOW_BITS..=MAX_WINDOW_BITS).contains(&window_bits)
        {
            return Err(CryptoError::WindowBits(window_bits));
        }
        Ok(Self {
            key: Keyed::new(provider, secret, context)?,
            windows: Windows {
                first: [const { OnceLock::new() }; NEAR],
                rest: OnceLock::new(),
            },
            window_bits,
        })
    }

    /// The nonce for a counter of a lane, as [`SealSa::nonce`] makes it.
    #[inline]
    #[must_use]
    pub fn nonce(&self, lane: u8, counter: u64) -> Nonce {
        self.key.nonce(lane, counter)
    }

    /// A packet to [`open`](crate::open), which leaves the replay windows alone.
    #[inline]
    #[must_use]
    pub fn packet<'a>(
        &'a self,
        lane: u8,
        counter: u64,
        aad: [u8; AAD_LEN],
        data: &'a mut [u8],
    ) -> Packet<'a> {
        self.key.packet(lane, counter, aad, data)
    }

    /// Marks a packet as received. Call it only after the packet's tag has verified, and drop the
    /// packet unless the answer is [`Replay::Fresh`], which is given once for each lane and
    /// counter, also when threads race.
    #[inline]
    pub fn commit(&self, lane: u8, counter: u64) -> Replay {
        self.window(lane).commit(counter)
    }

    /// As [`OpenSa::commit`], together with others of a batch, in which this packet is number `nth`, 0 to 63.
    #[inline]
    pub fn commit_with<'a>(&'a self, batch: &mut Commits<'a>, nth: usize, lane: u8, counter: u64) {
        // The lanes of a key side by side, so that they do not drive each other out.
        let key = std::ptr::from_ref(self).addr() >> 4;
        let slot = key.wrapping_mul(5).wrapping_add(lane.into());
        batch.add(nth, self.window(lane), counter, slot);
    }

    /// Makes a lane's replay window now instead of with its first packet.
    pub fn prepare(&self, lane: u8) {
        self.window(lane);
    }

    #[inline]
    fn window(&self, lane: u8) -> &Window {
        match self.windows.get(lane) {
            Some(window) => window,
            None => self.windows.make(lane, self.window_bits / BUCKET_BITS),
        }
    }

    /// Asks the processor for what [`OpenSa::prefetch`] reads of this.
    #[inline(always)]
    pub fn prefetch_self(&self, lane: u8) {
        prefetch(self);
        if let Some(window) = self.windows.first.get(usize::from(lane)) {
            prefetch(window);
        }
    }

    /// Asks the processor for what opening `len` bytes of data reads first, and marking this counter: some packets before
    /// they are opened.
    #[inline(always)]
    pub fn prefetch(&self, lane: u8, counter: u64, len: usize) {
        self.key.key.prefetch(len);
        if let Some(window) = self.windows.get(lane) {
            window.prefetch(counter);
        }
    }

    /// The epoch that the key was derived for.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.key.epoch
    }

    /// The algorithm.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.key.key.suite()
    }
}

impl Windows {
    #[inline(always)]
    fn get(&self, lane: u8) -> Option<&Window> {
        let lane = usize::from(lane);
        match self.first.get(lane) {
            Some(place) => place.get(),
            None => self.rest.get()?[lane - NEAR].get(),
        }
    }

    #[cold]
    fn make(&self, lane: u8, buckets: u32) -> &Window {
        let lane = usize::from(lane);
        let place = self.first.get(lane).unwrap_or_else(|| {
            let rest = || Box::new([const { OnceLock::new() }; MAX_LANES as usize - NEAR]);
            &self.rest.get_or_init(rest)[lane - NEAR]
        });
        place.get_or_init(|| Window::new(buckets))
    }
}

/// What both kinds of SA hold of their key.
struct Keyed {
    key: Key,
    iv: Zeroizing<Nonce>,
    epoch: u32,
}

impl Keyed {
    fn new(
        provider: &dyn Provider,
        secret: &Secret,
        context: Context,
    ) -> Result<Self, CryptoError> {
        let derived = kdf::sa_key(secret.bytes(), context);
        Ok(Self {
            key: provider.key(context.suite, derived.key())?,
            iv: Zeroizing::new(*derived.iv()),
            epoch: context.epoch,
        })
    }

    #[inline]
    fn packet<'a>(
        &'a self,
        lane: u8,
        counter: u64,
        aad: [u8; AAD_LEN],
        data: &'a mut [u8],
    ) -> Packet<'a> {
        Packet::new(&self.key, self.nonce(lane, counter), aad, data)
    }

    #[inline]
    fn nonce(&self, lane: u8, counter: u64) -> Nonce {
        // In two words: as a loop over octets it is ten times as many instructions.
        let [a, b, c, d, rest @ ..] = *self.iv;
        let head = u32::from_be_bytes([a, b, c, d]) ^ u32::from(lane);
        let rest = u64::from_be_bytes(rest) ^ counter;
        let mut nonce = Nonce::default();
        nonce[..4].copy_from_slice(&head.to_be_bytes());
        nonce[4..].copy_from_slice(&rest.to_be_bytes());
        nonce
    }
}
