package chat

import (
	"errors"
	"fmt"
	"time"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

// retryStore is when a client may come back after the database was away.
const retryStore = time.Second

// Failure is what a rule answers that could not be decided: Answer is for the client, the whole for the log. It holds the
// operation and what the store said, never a text, a password or a token. errors.As finds the *wire.Error in it.
type Failure struct {
	Answer *wire.Error
	Op     string
	Cause  error
}

func (f *Failure) Error() string { return fmt.Sprintf("chat: %s: %v", f.Op, f.Cause) }

// Unwrap gives both, so that errors.Is matches the answer's code and the cause.
func (f *Failure) Unwrap() []error { return []error{f.Answer, f.Cause} }

// away is the failure of a store: nothing was decided, and the same request may be made again.
func away(op string, cause error) error {
	answer := wire.Errorf(pb.Code_CODE_UNAVAILABLE, "the database cannot be reached")
	answer.RetryAfter = retryStore
	return &Failure{Answer: answer, Op: op, Cause: cause}
}

// Answer gives what a client is told of an error. One that carries no *wire.Error is a fault of the server: INTERNAL.
func Answer(err error) *wire.Error {
	if err == nil {
		return nil
	}
	if answer, ok := errors.AsType[*wire.Error](err); ok {
		return answer
	}
	return wire.Errorf(pb.Code_CODE_INTERNAL, "something went wrong in the server")
}

func limited(after time.Duration, why string) error {
	e := wire.Errorf(pb.Code_CODE_RATE_LIMITED, "%s", why)
	e.RetryAfter = max(after, time.Millisecond)
	return e
}
