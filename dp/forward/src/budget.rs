//! How many ICMP errors may be sent.
//!
//! Each VRF has budgets of its own, so that one cannot use up another's. Only a VRF with an edge port sends errors, as
//! none but those have a source for them; and an edge port is of one VRF. So the budgets have the places of ports, and
//! there are no more than [`MAX_PORTS`]. Errors about sizes have one for themselves: path MTU discovery stands on
//! them, and nothing on the others.

use super::reason::DropReason;
use twinseal_fib::{MAX_PORTS, PortIndex};

/// What is left, of errors about sizes and of others.
pub struct Budgets([[u16; 2]; MAX_PORTS]);

impl Budgets {
    /// The most that one can save.
    pub const MOST: u16 = 100;

    /// All have this much.
    pub fn of(errors: u16) -> Self {
        Self([[errors.min(Self::MOST); 2]; MAX_PORTS])
    }

    /// So many more for each; the worker does it by the clock.
    pub fn add(&mut self, errors: u16) {
        for left in self.0.as_flattened_mut() {
            *left = left.saturating_add(errors).min(Self::MOST);
        }
    }

    /// What is left for an error about `reason`, of the VRF with this place.
    pub(super) fn left(&mut self, place: PortIndex, reason: DropReason) -> Option<&mut u16> {
        let of_vrf = self.0.get_mut(usize::from(place.0))?;
        let left = &mut of_vrf[usize::from(reason == DropReason::PacketTooBig)];
        (*left > 0).then_some(left)
    }
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
        }
        let nowhere = place(MAX_PORTS as u8);
        assert_eq!(spend(&mut budgets, nowhere, DropReason::TtlExpired), 0);
        budgets.add(3);
        assert_eq!(spend(&mut budgets, place(7), DropReason::TtlExpired), 3);
        assert_eq!(
            spend(&mut budgets, place(8), DropReason::TtlExpired),
            Budgets::MOST
        );
    }
}
