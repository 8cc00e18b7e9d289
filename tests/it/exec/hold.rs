//! The dead-man: what a killed, stopped or cut-off job costs, and what a broker that is away does not.

use super::Stage;

#[test]
fn placeholder() {
    drop(Stage::new());
}
