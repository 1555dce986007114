//! Memory that a kernel keeps from one run to the next, for each thread that runs it.

use std::cell::RefCell;

use thread_local::ThreadLocal;

/// A `T` for each thread.
#[derive(Debug)]
pub(crate) struct PerThread<T: Send>(ThreadLocal<Apart<RefCell<T>>>);

/// On cache lines of its own, or what one thread writes would slow down another whose own lies beside
/// it. Two lines, because processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Apart<T>(pub(crate) T);

impl<T: Send> PerThread<T> {
    /// Calls `work` with this thread's `T`, which `make` makes the first time; with another one where
    /// it is in use further up this thread's stack. A panic leaves it as it is then.
    #[inline]
    pub(crate) fn with<R>(&self, make: impl Fn() -> T, work: impl FnOnce(&mut T) -> R) -> R {
        match self.0.get_or(|| Apart(RefCell::new(make()))).0.try_borrow_mut() {
            Ok(mut own) => work(&mut own),
            Err(_) => work(&mut make()),
        }
    }
}

impl<T: Send> Default for PerThread<T> {
    fn default() -> Self {
        Self(ThreadLocal::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_thread_keeps_is_there_again_and_never_lent_twice() {
        let kept = PerThread::<Vec<u8>>::default();
        kept.with(Vec::new, |outer| {
            outer.push(1);
            kept.with(Vec::new, |inner| assert!(inner.is_empty()));
        });
        kept.with(Vec::new, |again| assert_eq!(*again, [1]));
        std::thread::scope(|scope| {
            scope.spawn(|| kept.with(Vec::new, |other| assert!(other.is_empty())));
        });
    }
}
