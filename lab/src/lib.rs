//! Throw-away networks of namespaces, veths and impairments.
