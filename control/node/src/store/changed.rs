//! When owners changed something, as it is stored.

use super::format::Record;
use twinseal_model::owners::Owners;
use twinseal_model::refusal::Refused;
use twinseal_model::state::OwnerName;

/// In which generation an owner changed something last.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Changed {
    #[prost(string, tag = "1")]
    pub(super) owner: String,
    #[prost(uint64, tag = "2")]
    pub(super) generation: u64,
}

impl Record {
    /// Says when owners changed something.
    pub(super) fn say(&mut self, owners: &Owners) {
        let generations = owners.generations();
        let generations = generations.map(|(owner, generation)| Changed {
            owner: owner.told(),
            generation,
        });
        self.owners = generations.collect();
    }

    /// What it says of that. Earlier versions knew one owner.
    pub(super) fn hear(&self, owners: &mut Owners) -> Result<(), Refused> {
        if self.owners.is_empty() {
            owners.changed(&OwnerName::default(), self.generation);
        }
        for Changed { owner, generation } in &self.owners {
            owners.changed(&OwnerName::parse(owner)?, *generation);
        }
        Ok(())
    }
}
