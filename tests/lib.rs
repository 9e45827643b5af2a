//! What tests of several crates share.

<<<<<<< HEAD
pub mod command;
=======
pub mod documents;
>>>>>>> dbc52e951b8d9ab02059f02e80ee3c1b2813b037
pub mod sim;
