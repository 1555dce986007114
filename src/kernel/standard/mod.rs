//! Standard operators that stand around the others in exported tabular models.
use super::{BuildError, Kernel, Node};

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(crate) fn build(_node: &Node<'_>) -> Result<Box<dyn Kernel>, BuildError> {
    Err(BuildError::Unsupported)
}
