//! What `SOCK_DESTROY` can do: break a connection for both of its ends.

use super::{Offer, target};
use crate::fault::spec::{Action, Fault};

pub(super) fn offer(fault: &Fault) -> Result<Offer, String> {
    match target(fault)?.action {
        Action::Destroy => Err("it acts from user space, some time after the event".to_owned()),
        _ => Err("it can only destroy connections".to_owned()),
    }
}
