//! Memory that requests and answers under way take: some for each client, and more for all. What admins take is apart,
//! so that nobody else can keep them waiting.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of one client that is no admin, and of all of them.
const CLIENT: usize = 64 << 20;
const ALL: usize = 256 << 20;
/// The same of admins, in the longest messages that there may be.
const ADMIN: usize = 2;
const ADMINS: usize = 4;

/// What there is and who has it.
pub struct Budget {
    /// Bytes of the longest message.
    message: usize,
    taken: Mutex<[Taken; 2]>,
}

#[derive(Default)]
struct Taken {
    clients: HashMap<String, usize>,
    all: usize,
}

/// Bytes that a request or an answer has, until it is dropped.
pub struct Charge {
    budget: Arc<Budget>,
    client: String,
    admin: bool,
    bytes: usize,
}

/// There is not so much.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Overdrawn {
    /// The client has too much under way.
    Client(usize),
    /// All have.
    All(usize),
}

impl Budget {
    pub fn new(message: usize) -> Arc<Self> {
        Arc::new(Self {
            message,
            taken: Mutex::default(),
        })
    }

    /// Of one client and of all.
    fn limits(&self, admin: bool) -> (usize, usize) {
        match admin {
            true => (ADMIN * self.message, ADMINS * self.message),
            false => (CLIENT, ALL),
        }
    }

    fn lock(&self) -> MutexGuard<'_, [Taken; 2]> {
        // Nothing that holds it can leave it half changed.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Charge {
    /// Nothing yet.
    pub fn new(budget: &Arc<Budget>, client: &str, admin: bool) -> Self {
        Self {
            budget: Arc::clone(budget),
            client: client.to_owned(),
            admin,
            bytes: 0,
        }
    }

    /// Has so many bytes in place of those that it has. A client or a node with nothing else under way has what it asks
    /// for, however much that is: else an answer could be too large for ever.
    pub fn set(&mut self, bytes: usize) -> Result<(), Overdrawn> {
        let (client_limit, all_limit) = self.budget.limits(self.admin);
        let mut taken = self.budget.lock();
        let taken = &mut taken[usize::from(self.admin)];
        let others = taken.all - self.bytes;
        let own = taken.clients.get(&self.client).copied().unwrap_or_default() - self.bytes;
        if bytes > self.bytes {
            if own > 0 && own + bytes > client_limit {
                return Err(Overdrawn::Client(own));
            }
            if others > 0 && others + bytes > all_limit {
                return Err(Overdrawn::All(others));
            }
        }
        taken.all = others + bytes;
        match own + bytes {
            0 => _ = taken.clients.remove(&self.client),
            own => _ = taken.clients.insert(self.client.clone(), own),
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        // Less is always to be had.
        let _ = self.set(0);
    }
}

impl std::fmt::Display for Overdrawn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whose, bytes) = match self {
            Self::Client(bytes) => ("this client's", bytes),
            Self::All(bytes) => ("all clients'", bytes),
        };
        let mib = bytes >> 20;
        write!(
            f,
            "{whose} requests and answers under way take {mib} MiB of the node's memory: send and read those first, and ask for large states by List"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_have_a_budget_and_all_have_one_and_admins_their_own() {
        let budget = Budget::new(1 << 20);
        let charge = |client, admin, bytes| {
            let mut charge = Charge::new(&budget, client, admin);
            charge.set(bytes).map(|()| charge)
        };
        let large = charge("a", false, CLIENT * 2).expect("it is alone");
        assert_eq!(
            charge("a", false, 1).err(),
            Some(Overdrawn::Client(CLIENT * 2))
        );
        let _b = charge("b", false, CLIENT).expect("another's");
        let _c = charge("c", false, CLIENT).expect("another's");
        assert_eq!(charge("d", false, 1).err(), Some(Overdrawn::All(ALL)));
        let _admin = charge("root", true, 2 << 20).expect("apart");
        assert!(charge("root", true, 1).is_err());
        drop(large);
        let mut again = charge("a", false, 7).expect("it was given back");
        assert_eq!(again.set(CLIENT), Ok(()), "in place of the seven");
        drop(again);
        assert_eq!(budget.lock()[0].clients.len(), 2);
        assert_eq!(budget.lock()[0].all, 2 * CLIENT);
    }
}
