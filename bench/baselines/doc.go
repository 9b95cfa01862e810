// Package baselines has the barest programs that do what a row of `bench floor` measures of Future, so that a figure is a
// ratio within one run on one machine. Each is a process of its own and prints one JSON object.
//
//   - rawkafka: produce to Kafka, consume from it; what a message between two nodes cannot be faster than.
//   - rawmysql: insert the rows of messages; what the history consumer cannot be faster than.
//
// They are a module of their own: what they need is not the product's. None is tuned down: where upstream offers several ways
// the best measured one is the default, and the others can be asked for by flag.
package baselines
