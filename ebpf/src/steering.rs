//! The loaded and attached program of one network device.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use aya::Ebpf;
use aya::maps::{Array, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::{ProgramError, TestRun, TestRunOptions, Xdp};

use crate::layout::{
    Config, EndpointKey, HostKey, HostSpent, LocalKey, MAX_ENDPOINTS, MAX_KNOWN,
    MAX_LOCAL_ADDRESSES, MAX_MACS, MAX_QUEUES, MacKey, Verdict, mac_key, role,
};
use crate::load::load;
use crate::role::{Action, Role, XdpMode, XdpOutcome};
use crate::set::{Set, endpoint_key, local_key};
use crate::{SteerError, attached, files, sys};

/// The steering program on one network device. Dropping it detaches the program.
pub struct Steering {
    // First, so that it goes first: no frame meets maps that are going.
    link: sys::XdpLink,
    pub(crate) name: String,
    outcome: XdpOutcome,
    native_refusal: Option<io::Error>,
    pub(crate) config: Config,
    pub(crate) config_map: Array<MapData, Config>,
    sockets: XskMap<MapData>,
    local: Set<LocalKey>,
    pub(crate) broadcasts: Set<LocalKey>,
    macs: Set<MacKey>,
    endpoints: Set<EndpointKey>,
    pub(crate) known: Set<HostKey, HostSpent>,
    counters: PerCpuArray<MapData, u64>,
    program: Ebpf,
}

impl Steering {
    /// Loads the program and attaches it to the device of that name in the calling thread's network namespace.
    ///
    /// Until addresses or endpoints are set and sockets registered, all frames pass to the kernel. Register sockets
    /// last: an edge port that knows no local addresses takes the host's own traffic as well.
    ///
    /// # Errors
    /// [`SteerError::NoSuchDevice`], [`SteerError::AlreadyAttached`], [`SteerError::NoPermission`],
    /// [`SteerError::NativeUnsupported`] (only with [`XdpMode::Native`]), [`SteerError::Verifier`], or
    /// [`SteerError::Kernel`].
    pub fn attach(ifname: &str, role: Role, mode: XdpMode) -> Result<Self, SteerError> {
        let if_index = if_index(ifname)?;
        let mut program = load()?;
        let config = role.config();
        let mut config_map: Array<_, Config> = take_map(&mut program, "CONFIG")?;
        config_map
            .set(0, config, 0)
            .map_err(|error| SteerError::aya("setting the port's role", &error))?;

        let attach = |flag| {
            let fd = xdp(&program)?
                .fd()
                .map_err(|error| SteerError::aya("finding the loaded program", &error))?;
            sys::xdp_link(fd.as_fd(), if_index, flag)
                .map_err(|error| attach_error(ifname, if_index, error))
        };
        let (link, outcome, native_refusal) = match mode {
            XdpMode::Generic => (attach(sys::GENERIC)?, XdpOutcome::Generic, None),
            XdpMode::Native | XdpMode::Auto => match attach(sys::NATIVE) {
                Ok(link) => (link, XdpOutcome::Native, None),
                Err(SteerError::Kernel { source, .. }) if mode == XdpMode::Auto => {
                    (attach(sys::GENERIC)?, XdpOutcome::Generic, Some(source))
                }
                Err(SteerError::Kernel { source, .. }) => {
                    return Err(SteerError::NativeUnsupported {
                        name: ifname.to_owned(),
                        source,
                    });
                }
                Err(other) => return Err(other),
            },
        };

        Ok(Self {
            link,
            name: ifname.to_owned(),
            outcome,
            native_refusal,
            config,
            config_map,
            sockets: take_map(&mut program, "XSKS")?,
            local: Set::new(
                take_map(&mut program, "LOCAL")?,
                "local addresses",
                MAX_LOCAL_ADDRESSES,
            ),
            broadcasts: Set::new(
                take_map(&mut program, "BROADCASTS")?,
                "broadcast addresses",
                MAX_LOCAL_ADDRESSES,
            ),
            macs: Set::new(take_map(&mut program, "MACS")?, "MAC addresses", MAX_MACS),
            endpoints: Set::new(
                take_map(&mut program, "ENDPOINTS")?,
                "UDP endpoints",
                MAX_ENDPOINTS,
            ),
            known: Set::new(take_map(&mut program, "KNOWN")?, "neighbours", MAX_KNOWN),
            counters: take_map(&mut program, "COUNTERS")?,
            program,
        })
    }

    /// Looks whether another program is on the device, and attaches none: [`attach`](Self::attach) would be refused.
    ///
    /// # Errors
    /// [`SteerError::NoSuchDevice`], [`SteerError::AlreadyAttached`].
    pub fn look(ifname: &str) -> Result<(), SteerError> {
        match attached::found(if_index(ifname)?) {
            Some(by) => Err(SteerError::AlreadyAttached {
                name: ifname.to_owned(),
                by,
            }),
            None => Ok(()),
        }
    }

    /// How the program runs.
    pub fn outcome(&self) -> XdpOutcome {
        self.outcome
    }

    /// Whether the program is still on its device: false once the device is gone, or somebody took the program off or put
    /// another in its place. Takes the kernel's lock of all devices for a moment.
    pub fn is_attached(&self) -> bool {
        self.link.is_attached()
    }

    /// Why the driver refused native mode, if [`XdpMode::Auto`] came down to generic.
    pub fn native_refusal(&self) -> Option<&io::Error> {
        self.native_refusal.as_ref()
    }

    /// Whether the device takes VLAN tags out of received frames, so that the program cannot tell tagged frames from
    /// untagged ones. The remedy is `ethtool -K <device> rxvlan off`.
    ///
    /// # Errors
    /// [`SteerError::Kernel`] when the device cannot tell.
    pub fn vlan_tags_hidden(&self) -> Result<bool, SteerError> {
        sys::rx_vlan_offload(&self.name).map_err(|error| {
            SteerError::kernel(format!("reading the offloads of {}", self.name), error)
        })
    }

    /// Makes an AF_XDP socket the receiver of our frames of its receive queue, in the place of an earlier one.
    /// The socket must be bound to this device and this queue, else the kernel drops what it is handed. The kernel
    /// forgets the socket when it is closed.
    ///
    /// # Errors
    /// [`SteerError::QueueOutOfRange`]; [`SteerError::Kernel`] if the descriptor is not an AF_XDP socket.
    pub fn register(&mut self, queue: u32, xsk: impl AsFd) -> Result<(), SteerError> {
        check_queue(queue)?;
        self.sockets.set(queue, xsk.as_fd(), 0).map_err(|error| {
            SteerError::aya(
                format!(
                    "registering the AF_XDP socket of queue {queue} of {}",
                    self.name
                ),
                &error,
            )
        })
    }

    /// Lets the frames of a receive queue pass to the kernel again. No socket there is no error.
    ///
    /// # Errors
    /// [`SteerError::QueueOutOfRange`]; [`SteerError::Kernel`].
    pub fn unregister(&mut self, queue: u32) -> Result<(), SteerError> {
        check_queue(queue)?;
        self.sockets.unset(queue).map_err(|error| {
            SteerError::aya(
                format!(
                    "unregistering the AF_XDP socket of queue {queue} of {}",
                    self.name
                ),
                &error,
            )
        })
    }

    /// Sets the port's own addresses: an edge port leaves packets to these to the kernel. Give none that the machine has
    /// elsewhere: tenants would reach the machine by them, in place of their own hosts. Only the difference to what was set
    /// before is written.
    ///
    /// # Errors
    /// [`SteerError::TooMany`]; [`SteerError::Kernel`] (setting again mends what was left undone).
    pub fn set_local_addresses(&mut self, addresses: &[IpAddr]) -> Result<(), SteerError> {
        self.local
            .replace(addresses.iter().map(local_key).collect())
    }

    /// Sets the UDP endpoints, local address (no wildcard) and port, whose packets an underlay port takes. Only the difference to
    /// what was set before is written.
    ///
    /// # Errors
    /// [`SteerError::TooMany`]; [`SteerError::Kernel`] (setting again mends what was left undone).
    pub fn set_endpoints(&mut self, endpoints: &[SocketAddr]) -> Result<(), SteerError> {
        self.endpoints
            .replace(endpoints.iter().map(endpoint_key).collect())
    }

    /// Sets the port's own MAC address, after it changed.
    ///
    /// # Errors
    /// [`SteerError::Kernel`].
    pub fn set_mac(&mut self, mac: [u8; 6]) -> Result<(), SteerError> {
        let config = Config { mac, ..self.config };
        self.config_map.set(0, config, 0).map_err(|error| {
            SteerError::aya(format!("setting the MAC address of {}", self.name), &error)
        })?;
        self.config = config;
        Ok(())
    }

    /// Sets the MAC addresses that an edge port has besides its own, as virtual routers have them (RFC 9568, 7.3). Only the
    /// difference to what was set before is written.
    ///
    /// # Errors
    /// [`SteerError::TooMany`]; [`SteerError::Kernel`] (setting again mends what was left undone).
    pub fn set_more_macs(&mut self, macs: &[[u8; 6]]) -> Result<(), SteerError> {
        self.macs
            .replace(macs.iter().map(|mac| mac_key(*mac)).collect())
    }

    /// Frames a verdict since the program was attached, over all CPUs. On an edge port those of dropped frames come behind,
    /// by [`Verdict::dropped_name`].
    ///
    /// # Errors
    /// [`SteerError::Kernel`].
    pub fn counters(&self) -> Result<Vec<(&'static str, u64)>, SteerError> {
        let passed = Verdict::ALL.iter().map(|it| (*it as u32, it.name()));
        let passed = passed.filter(|(_, name)| !name.is_empty());
        let dropped = Verdict::ALL.iter().filter_map(|it| {
            let name = it.dropped_name()?;
            let counts = match it {
                Verdict::NeighbourShare
                | Verdict::Repeated
                | Verdict::UnicastInMulticast
                | Verdict::PassVlan => self.config.role == role::EDGE,
                _ => self.config.owned != 0,
            };
            counts.then_some((*it as u32 + Verdict::COUNT as u32, name))
        });
        let count = |(number, name)| Ok((name, self.counter(number)?));
        passed.chain(dropped).map(count).collect()
    }

    pub(crate) fn counter(&self, number: u32) -> Result<u64, SteerError> {
        let cpus = self.counters.get(&number, 0).map_err(|error| {
            SteerError::aya(format!("reading the counters of {}", self.name), &error)
        })?;
        Ok(cpus.iter().fold(0u64, |sum, cpu| sum.wrapping_add(*cpu)))
    }

    /// What the program, as it is set now, does with this frame if it comes in on receive queue 0. Nothing is sent or
    /// received, but the frame is counted. The kernel wants 14 bytes at least.
    ///
    /// # Errors
    /// [`SteerError::Kernel`].
    pub fn dry_run(&self, frame: &[u8]) -> Result<Action, SteerError> {
        let options = TestRunOptions {
            data_in: Some(frame),
            ..TestRunOptions::new()
        };
        let result = xdp(&self.program)?
            .test_run(options)
            .map_err(|error| SteerError::aya("running the steering program on a frame", &error))?;
        match result.return_value {
            XDP_DROP => Ok(Action::Drop),
            XDP_PASS => Ok(Action::Pass),
            XDP_REDIRECT => Ok(Action::Redirect),
            other => Err(SteerError::Object {
                detail: format!("the program returned action {other}"),
            }),
        }
    }
}

impl fmt::Debug for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steering")
            .field("name", &self.name)
            .field("outcome", &self.outcome)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// `enum xdp_action` of `linux/bpf.h`.
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

fn if_index(ifname: &str) -> Result<u32, SteerError> {
    sys::if_index(ifname).map_err(|error| match files::too_many(&error) {
        Some(_) => SteerError::kernel(format!("looking for {ifname}"), error),
        None => SteerError::NoSuchDevice {
            name: ifname.to_owned(),
        },
    })
}

pub(crate) const PROGRAM: &str = "twinseal";

fn xdp(ebpf: &Ebpf) -> Result<&Xdp, SteerError> {
    ebpf.program(PROGRAM)
        .ok_or_else(|| missing("program", PROGRAM))?
        .try_into()
        .map_err(|error: ProgramError| SteerError::aya("finding the loaded program", &error))
}

fn take_map<M>(ebpf: &mut Ebpf, name: &str) -> Result<M, SteerError>
where
    M: TryFrom<aya::maps::Map, Error = MapError>,
{
    let map = ebpf.take_map(name).ok_or_else(|| missing("map", name))?;
    M::try_from(map).map_err(|error| SteerError::aya(format!("opening the map {name}"), &error))
}

pub(crate) fn missing(kind: &str, name: &str) -> SteerError {
    SteerError::Object {
        detail: format!("it has no {kind} {name}"),
    }
}

/// Sorts the answer to an attach. `EBUSY`: a program is there; `EEXIST`: one is there in the other mode.
fn attach_error(ifname: &str, if_index: u32, error: io::Error) -> SteerError {
    match error.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => SteerError::AlreadyAttached {
            name: ifname.to_owned(),
            by: attached::describe(if_index),
        },
        Some(libc::ENODEV) => SteerError::NoSuchDevice {
            name: ifname.to_owned(),
        },
        _ => SteerError::kernel(format!("attaching the steering program to {ifname}"), error),
    }
}

fn check_queue(queue: u32) -> Result<(), SteerError> {
    if queue < MAX_QUEUES {
        Ok(())
    } else {
        Err(SteerError::QueueOutOfRange {
            queue,
            max: MAX_QUEUES,
        })
    }
}

/// The control thread may be any thread.
const _: () = {
    const fn any_thread<T: Send + Sync>() {}
    any_thread::<Steering>();
};
