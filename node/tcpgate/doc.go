// Package tcpgate is the node's door: it accepts connections, cuts what they
// send into frames, and writes frames to them. A frame is a big-endian uint32
// length followed by that many bytes. What a frame means is not its business.
//
// # What a handler may do
//
// A [Handler] runs on the goroutine of a loop, which thousands of connections
// share. It may call every method of Conn, for any connection, and Gate.Push:
// none of them blocks or calls the handler back before it returns. It may take a
// lock that is held for a moment, and hand work to others over a channel that it
// does not wait for. It must not wait: no I/O, no call to a database, no channel
// that may be full, no [Gate.Close]. It must not keep a payload, nor change a
// frame that was sent. A panic in it ends the process. Elsewhere, Conn's methods
// and Push may be called from any goroutine at any time, after the end too.
//
// # Why it looks like this
//
// The package is the only importer of github.com/tidwall/evio (v1.0.8) and
// exists to keep that library's hazards in one place. evio is used for accept,
// epoll and reads; every write is ours. The hazards, and what is done here:
//
//  1. evio's Wake replaces output that is not yet written, and output returned
//     from Data blocks reads, spins its loop and cannot be closed. So no
//     callback ever returns output. A connection's frames wait in our own
//     bounded queue and are written with writev(2) on the goroutine of the
//     connection's loop, never on another: elsewhere the descriptor could
//     already be someone else's.
//  2. evio has no way to run something on its loop but Wake, which costs a
//     write each. Each loop has a mailbox; who posts to it wakes the loop once,
//     with a byte on a control connection over a private unix listener of the
//     same Serve. At most one such byte is in flight.
//  3. evio cannot tell when a socket takes more. What a socket does not take is
//     retried by a timer of the loop, with a back-off per connection, and only
//     while there is such a connection.
//  4. Any accept error but EAGAIN ends Serve without an error. The loop is
//     served again and its connections are told [CloseLoopRestart]. Before it
//     comes to that, connections are refused when descriptors become scarce.
//  5. Returning Close from Data waits for the socket to become writable. So
//     connections are closed with shutdown(2): the end of a flushed connection
//     is SHUT_WR, then a bounded time for the peer to go, then SHUT_RDWR.
//  6. At its end Serve closes each listener's descriptor twice; in between,
//     another goroutine may have been given the same number. The loop holds a
//     few lower descriptors and releases them just before, so that a
//     descriptor opened at that moment gets one of those. They also are what
//     Serve needs to start again when the process has no descriptors left. If
//     a lower descriptor became free just while Serve began, its listener may
//     have got it, and a window of about a microsecond remains at its end.
//  7. Serve waits for the end of its loop on a condition that it may miss when
//     the loop ends in its first moments. So a loop is never stopped younger
//     than a small grace, and a loop that does not come up in time is reported
//     by [Gate.Failed].
//  8. evio's Tick may write to a descriptor that is closed. It is not used.
//  9. evio does not mark descriptors close-on-exec. Opened does.
//
// The descriptors of the connection and of the loop's epoll (to pause reading
// without spinning) are private fields of evio, read by reflection. Their shape
// is checked when the loop starts, and another one is [ErrLayout].
//
// # What an idle connection costs
//
// Its Conn and evio's own record: no goroutine, no buffer, no timer. Silence is
// found by one timing wheel per loop. A buffer exists only while a frame is
// incomplete, and grows with what has arrived, not with what was announced.
//
// # Where to start
//
// [Listen] and [Handler] are the interface; loop.go is the loop's turn, flush.go
// the way out, frame.go the way in, serve.go the life of one evio.Serve.
package tcpgate
