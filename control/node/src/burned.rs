//! Which secrets have sealed or opened, as far as anybody knows: what cannot be known is not taken for "none".

use twinseal_crypto::{BurnError, BurnGuard, BurnMark, BurnUse, Fingerprint};

use crate::state_dir::StateDirError;
use crate::store::newest::{Newest, Reached};
use twinseal_model::refusal::{Code, Refused};
use twinseal_model::transaction::Outcome;

/// The memory of burned secrets, or why there is none.
pub(super) struct Burned {
    memory: Result<BurnGuard, Lost>,
    /// How far the memory must go, while it is lost.
    mark: BurnMark,
    /// Where to say how far it goes, if no tables are stored which say so; and the generation that is written there.
    newest: Option<(Newest, u64)>,
    /// That it was lost while the node ran has not been told.
    untold: bool,
}

/// What became of the files while the node ran.
#[derive(Default)]
pub(super) struct Found {
    /// Why secrets are refused from now on.
    pub(super) refuses: Option<String>,
    /// What was lost and is written anew.
    pub(super) lost: Option<String>,
}

/// Why nobody knows which secrets have sealed.
struct Lost {
    why: String,
    fix: &'static str,
}

impl Burned {
    /// Of a state directory that is in use.
    pub(super) fn new(
        guard: Result<BurnGuard, StateDirError>,
        mark: BurnMark,
        newest: Option<(Newest, u64)>,
    ) -> Self {
        Self {
            memory: guard.map_err(|error| Lost::new(&error)),
            mark,
            newest,
            untold: false,
        }
    }

    /// Without a state directory.
    pub(super) fn none(error: &StateDirError) -> Self {
        Self {
            memory: Err(Lost::new(error)),
            mark: BurnMark::default(),
            newest: None,
            untold: false,
        }
    }

    /// Whether the secret has sealed.
    pub(super) fn is_burned(&self, fingerprint: &Fingerprint) -> bool {
        self.memory
            .as_ref()
            .is_ok_and(|guard| guard.is_burned(fingerprint))
    }

    /// Whether the secret is remembered to have opened.
    pub(super) fn has_opened(&self, fingerprint: &Fingerprint) -> bool {
        self.memory
            .as_ref()
            .is_ok_and(|guard| guard.has_opened(fingerprint))
    }

    /// How far the memory goes; if it is lost, how far it must go before it is believed again.
    pub(super) fn mark(&self) -> BurnMark {
        match &self.memory {
            Ok(guard) => guard.mark(),
            Err(_) => self.mark,
        }
    }

    /// Why secrets are refused, with what to do; `None` while they are taken.
    pub(super) fn refuses(&self) -> Option<String> {
        let lost = self.memory.as_ref().err()?;
        Some(format!("{}: {}", lost.why, lost.fix))
    }

    /// Looks whether the files are still there, and whole. Of a memory that is not, nobody will know what it had after a
    /// restart: so no secret is taken from now on.
    pub(super) fn look(&mut self) -> Found {
        self.look_at_memory();
        let mut found = Found::default();
        if std::mem::take(&mut self.untold) {
            found.refuses = self.refuses();
        }
        if let (Ok(guard), Some((newest, generation))) = (&self.memory, &mut self.newest) {
            let reached = Reached {
                generation: *generation,
                burned: guard.mark(),
            };
            if let Ok(true) = newest.look(&reached) {
                found.lost = Some(format!("{} and is written anew", newest.lost()));
            }
        }
        found
    }

    fn look_at_memory(&mut self) {
        let Ok(guard) = &self.memory else {
            return;
        };
        // A disk that fails for a moment takes nothing away.
        if let Err(error @ (BurnError::Missing { .. } | BurnError::Changed { .. })) = guard.check()
        {
            self.mark = guard.mark();
            self.memory = Err(Lost::new(&error.into()));
            self.untold = true;
        }
    }

    /// Refuses the secrets of a transaction if nobody knows which have sealed.
    pub(super) fn check(&self, outcome: &Outcome, refused: &mut Refused) {
        if let Err(lost) = &self.memory
            && !outcome.secrets.is_empty()
        {
            let why = format!(
                "this node cannot know which secrets were used before, and takes none: {}",
                lost.why
            );
            refused.append(Refused::whole(
                Code::SecretsRefused,
                "secret",
                why,
                lost.fix,
            ));
        }
    }

    /// Burns secrets: when this returns, all of them are on the disk, or none counts as burned.
    pub(super) fn burn_all(&mut self, secrets: &[(Fingerprint, BurnUse)]) -> Result<(), Refused> {
        self.look_at_memory();
        let guard = match &mut self.memory {
            Ok(guard) => guard,
            Err(lost) => {
                return Err(Refused::whole(
                    Code::SecretsRefused,
                    "",
                    lost.why.clone(),
                    lost.fix,
                ));
            }
        };
        guard.remember(secrets).map_err(|error| {
            Refused::whole(
                Code::Storage,
                "",
                error.to_string(),
                "see to the node's state directory; nothing was changed",
            )
        })?;
        if let Some((newest, generation)) = &self.newest {
            let reached = Reached {
                generation: *generation,
                burned: guard.mark(),
            };
            if let Err(error) = newest.write(&reached) {
                tracing::warn!(%error, "a cut of the burned secrets would not be seen before the next one burns");
            }
        }
        Ok(())
    }
}

impl Lost {
    fn new(error: &StateDirError) -> Self {
        Self {
            why: error.to_string(),
            fix: error.fix(),
        }
    }
}
