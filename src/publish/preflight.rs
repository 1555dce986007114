//! The checks of a subscriber, before anything is written.

use crate::error::{Error, ErrorKind};
use crate::load::Formats;
use crate::release::Release;
use crate::verify::{Hashed, Loaded, Sized};

/// Loads the model and runs its samples, or says why a subscriber would refuse it.
pub(super) fn check(
    release: &Release,
    file: Hashed,
    formats: &Formats,
    memory_budget: u64,
) -> Result<(), Error> {
    let proven = Sized::new(release.clone(), u64::MAX)
        .and_then(|sized| sized.verify(file))
        .and_then(|verified| Loaded::load(verified, formats, memory_budget))
        .and_then(|loaded| loaded.prove(None));
    match proven {
        Ok(_) => Ok(()),
        Err(rejection) => {
            let message = format!("model `{}` is refused: {rejection}", release.model);
            Err(Error::new(ErrorKind::Rejected, message))
        }
    }
}
