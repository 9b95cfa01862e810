// Package e2e holds the tests of the whole product: clusters of real processes (see clustertest), used through the SDK, the
// terminal client and raw sockets, and looked at through the tests' own SQL and their own reading of the log.
//
// They run on embedded Kafka and Redis and a SQLite file, or on the real servers that FUTURE_TEST_KAFKA, FUTURE_TEST_REDIS and
// FUTURE_TEST_MYSQL name.
package e2e
