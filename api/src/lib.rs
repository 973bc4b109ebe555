//! The control protocol of Twinseal and its generated client.
