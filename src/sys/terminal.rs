//! What is typed at the terminal and not shown there.

use std::io::{self, BufRead, Write};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// One line from the terminal, without its end. The question is shown, the answer is not; what the terminal was
/// set to before is set again, also after an error.
pub fn ask_hidden(question: &str) -> io::Result<Zeroizing<String>> {
    let input = io::stdin();
    let before = tcgetattr(&input)?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    hidden.local_modes.insert(LocalModes::ECHONL);
    tcsetattr(&input, OptionalActions::Flush, &hidden)?;
    let mut typed = Zeroizing::new(String::with_capacity(256));
    let mut talk = io::stderr().lock();
    let heard = talk
        .write_all(question.as_bytes())
        .and_then(|()| talk.flush())
        .and_then(|()| input.lock().read_line(&mut typed));
    tcsetattr(&input, OptionalActions::Flush, &before)?;
    heard?;
    Ok(Zeroizing::new(typed.trim_end_matches(['\n', '\r']).to_owned()))
}
