//! A few connections for reading, opened when they are needed.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::{StoreError, place::Place};

/// Connections for reading.
pub const CONNECTIONS: usize = 4;

#[derive(Debug)]
pub(super) struct Pool {
    place: Place,
    shelf: Mutex<Shelf>,
    returned: Condvar,
}

#[derive(Debug, Default)]
struct Shelf {
    idle: Vec<Connection>,
    /// Idle or lent.
    open: usize,
}

impl Pool {
    pub fn of(place: Place) -> Self {
        Self { place, shelf: Mutex::default(), returned: Condvar::new() }
    }

    /// Runs `read` on a connection; waits while all are lent.
    pub fn with<T>(&self, read: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let _turn = self.place.reading();
        let loan = self.lend()?;
        read(loan.connection())
    }

    fn lend(&self) -> Result<Loan<'_>, StoreError> {
        let full = |shelf: &mut Shelf| shelf.idle.is_empty() && shelf.open >= CONNECTIONS;
        let mut shelf = self.returned.wait_while(self.shelf(), full).unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = shelf.idle.pop() {
            return Ok(Loan { pool: self, connection: Some(connection) });
        }
        shelf.open += 1;
        drop(shelf);
        // A loan without a connection gives its place back when opening fails.
        let mut loan = Loan { pool: self, connection: None };
        loan.connection = Some(self.place.reader()?);
        Ok(loan)
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that goes back by itself.
struct Loan<'a> {
    pool: &'a Pool,
    connection: Option<Connection>,
}

impl Loan<'_> {
    fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("a loan has its connection until it is dropped")
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        let mut shelf = self.pool.shelf();
        match self.connection.take() {
            Some(connection) => shelf.idle.push(connection),
            None => shelf.open -= 1,
        }
        self.pool.returned.notify_one();
    }
}
