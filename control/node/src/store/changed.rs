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

#[cfg(test)]
mod tests {
    use prost::Message;
    use twinseal_crypto::BurnMark;

    use super::*;
    use crate::store::format::Kind;

    #[test]
    fn what_an_earlier_version_wrote_is_the_controllers() {
        // It wrote no more than these fields, and nothing is what an empty one encodes to.
        let mut record = Record::new(Kind::Commit, 7, &BurnMark::default(), Vec::new());
        record.burned_head.clear();
        assert_eq!(record.encode_to_vec(), [8, 3, 16, 7]);
        let controller = OwnerName::default();
        let mut owners = Owners::default();
        record.hear(&mut owners).expect("sound");
        assert_eq!(owners.generation(&controller), 7);

        let bgp = OwnerName::parse("bgp").expect("a name");
        owners.changed(&bgp, 9);
        record.say(&owners);
        let mut again = Owners::default();
        let record = Record::decode(&*record.encode_to_vec()).expect("whole");
        record.hear(&mut again).expect("sound");
        assert_eq!(
            (again.generation(&controller), again.generation(&bgp)),
            (7, 9)
        );
    }
}
