//! Tasks that go on for as long as the broker does, whatever becomes of one of their steps.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;

/// How long a task does nothing after a step that ended abnormally: the next may as well.
const PAUSE: Duration = Duration::from_secs(1);

/// Does a step of a task of this name. Where it panics that is told, after what the panic said
/// itself, and nothing has come of it; the task goes on with its next step, since nobody would
/// notice one that is no more.
///
/// What the step works on is as the panic left it: it has to be such that the next step can begin
/// with that.
pub(super) async fn survive<T>(task: &'static str, step: impl Future<Output = T>) -> Option<T> {
    let outcome = AssertUnwindSafe(step).catch_unwind().await;
    match outcome {
        Ok(outcome) => Some(outcome),
        Err(_) => {
            tracing::error!(
                task,
                "a step ended abnormally, which is a mistake in the program; the next is tried"
            );
            tokio::time::sleep(PAUSE).await;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_goes_on_after_a_step_that_panics() {
        let mut steps = 0;
        let mut outcomes = Vec::new();
        for _ in 0..3 {
            let step = async {
                steps += 1;
                tokio::task::yield_now().await;
                assert_ne!(steps, 2, "this one fails");
                steps
            };
            outcomes.push(survive("test", step).await);
        }
        assert_eq!(outcomes, [Some(1), None, Some(3)]);
    }
}
