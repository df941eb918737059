//! x
use super::ControlError;
use super::hands::Hands;
use super::observe::Observer;
use super::run_loop::Acting;
pub(super) fn hands(_o: &Observer, _a: &Acting) -> Result<Hands, ControlError> { Err(ControlError::NoWindow) }
