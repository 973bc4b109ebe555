//! AF_XDP memory, rings and sockets.
