//! Integration tests over real vhost-user sockets.
