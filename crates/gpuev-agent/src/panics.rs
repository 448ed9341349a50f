//! A thread that panics ends the agent: who started it starts it again. Without this, the others would go on and seem well.

/// From now on, a panic of any thread ends the process, after it was told as usual.
pub fn end_the_process() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::abort();
    }));
}
