//! Places for closes. A connection needs one only from the pod's close to its judgement, and most that
//! are live have none; afterwards the place is another's, so that a record asks for no memory.

use super::Close;

/// Places kept at most, as much as a burst of closes needs at once.
const MAX_SPARE: usize = 1 << 14;

/// Places that are not in use.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "the boxes are what is kept")]
pub struct Spare(Vec<Box<Close>>);

impl Spare {
    /// Puts a close into a place.
    pub(super) fn keep(&mut self, close: Close) -> Box<Close> {
        let Some(mut place) = self.0.pop() else { return Box::new(close) };
        *place = close;
        place
    }

    /// Takes a place back.
    pub fn give_back(&mut self, place: Box<Close>) {
        if self.0.len() < MAX_SPARE {
            self.0.push(place);
        }
    }
}
