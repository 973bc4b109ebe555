//! How many ICMP errors and echo replies may be sent.
//!
//! Each VRF has budgets of its own, so that one cannot use up another's. Only a VRF with an edge port sends errors, as
//! none but those have a source for them; and an edge port is of one VRF. So the budgets have the places of ports, and
//! there are no more than [`MAX_PORTS`]. Errors about sizes have one for themselves: path MTU discovery stands on
//! them, and nothing on the others. So have echo replies, which are many where somebody measures: the bound only keeps who
//! sends requests as fast as he can from having the worker answer all of them, in the time of others' packets.

use super::reason::DropReason;
use twinseal_fib::{MAX_PORTS, PortIndex};

/// What is left.
pub struct Budgets([Left; MAX_PORTS]);

#[derive(Clone, Copy)]
struct Left {
    sizes: u16,
    others: u16,
    echoes: u16,
}

impl Budgets {
    /// The most errors that one can save.
    pub const MOST: u16 = 100;
    /// Echo replies for each error.
    pub const ECHOES: u16 = 10;

    /// All have this much, and [`ECHOES`](Self::ECHOES) times as many echo replies.
    pub fn of(errors: u16) -> Self {
        let none = Left {
            sizes: 0,
            others: 0,
            echoes: 0,
        };
        let mut budgets = Self([none; MAX_PORTS]);
        budgets.add(errors);
        budgets
    }

    /// So many more for each; the worker does it by the clock.
    pub fn add(&mut self, errors: u16) {
        let errors = errors.min(Self::MOST);
        let add =
            |left: &mut u16, times: u16| *left = (*left + times * errors).min(times * Self::MOST);
        for left in &mut self.0 {
            add(&mut left.sizes, 1);
            add(&mut left.others, 1);
            add(&mut left.echoes, Self::ECHOES);
        }
    }

    /// What is left for an error about `reason`, of the VRF with this place.
    pub(super) fn left(&mut self, place: PortIndex, reason: DropReason) -> Option<&mut u16> {
        let of_vrf = self.0.get_mut(usize::from(place.0))?;
        let left = match reason {
            DropReason::PacketTooBig => &mut of_vrf.sizes,
            _ => &mut of_vrf.others,
        };
        (*left > 0).then_some(left)
    }

    /// Takes an echo reply of the VRF with this place, and says whether there was one left.
    pub(super) fn echo(&mut self, place: PortIndex) -> bool {
        let of_vrf = self.0.get_mut(usize::from(place.0));
        of_vrf.is_some_and(|left| take(&mut left.echoes))
    }
}

/// Takes one of what is left, and says whether there was one.
pub(super) fn take(left: &mut u16) -> bool {
    let some = *left > 0;
    *left -= u16::from(some);
    some
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_spends_what_is_anothers() {
        let place = PortIndex;
        let spend = |budgets: &mut Budgets, place, reason| {
            let mut spent = 0;
            while let Some(left) = budgets.left(place, reason) {
                *left -= 1;
                spent += 1;
            }
            spent
        };
        let mut budgets = Budgets::of(Budgets::MOST);
        for port in [0, 7, MAX_PORTS as u8 - 1] {
            assert_eq!(
                spend(&mut budgets, place(port), DropReason::TtlExpired),
                Budgets::MOST
            );
            assert_eq!(spend(&mut budgets, place(port), DropReason::NoRoute), 0);
            assert_eq!(
                spend(&mut budgets, place(port), DropReason::PacketTooBig),
                Budgets::MOST
            );
            let echoes = (0..2000).filter(|_| budgets.echo(place(port))).count();
            assert_eq!(echoes, 1000);
        }
        let nowhere = place(MAX_PORTS as u8);
        assert_eq!(spend(&mut budgets, nowhere, DropReason::TtlExpired), 0);
        assert!(!budgets.echo(nowhere));
        budgets.add(3);
        let echoes = (0..2000).filter(|_| budgets.echo(place(7))).count();
        assert_eq!(echoes, 30);
        assert_eq!(spend(&mut budgets, place(7), DropReason::TtlExpired), 3);
        assert_eq!(
            spend(&mut budgets, place(8), DropReason::TtlExpired),
            Budgets::MOST
        );
    }
}
