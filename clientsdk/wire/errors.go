package wire

import (
	"fmt"
	"strings"
	"time"

	"github.com/futurechat/future/clientsdk/wire/futurev1"
)

// Error is what a node answers instead of what was asked for. Two errors are the same for errors.Is when their codes are.
type Error struct {
	Code futurev1.Code
	// Message is for people.
	Message string
	// Field names what is wrong in the request, or is empty.
	Field string
	// RetryAfter is how long to wait before a retry; 0: a retry as it is will not help.
	RetryAfter time.Duration
}

// The errors to compare with by errors.Is, one a code.
var (
	ErrInvalid        = &Error{Code: futurev1.Code_CODE_INVALID}
	ErrUnsupported    = &Error{Code: futurev1.Code_CODE_UNSUPPORTED}
	ErrNotLoggedIn    = &Error{Code: futurev1.Code_CODE_NOT_LOGGED_IN}
	ErrTooLarge       = &Error{Code: futurev1.Code_CODE_TOO_LARGE}
	ErrBadCredentials = &Error{Code: futurev1.Code_CODE_BAD_CREDENTIALS}
	ErrSessionEnded   = &Error{Code: futurev1.Code_CODE_SESSION_ENDED}
	ErrNameTaken      = &Error{Code: futurev1.Code_CODE_NAME_TAKEN}
	ErrNotFound       = &Error{Code: futurev1.Code_CODE_NOT_FOUND}
	ErrNotFriends     = &Error{Code: futurev1.Code_CODE_NOT_FRIENDS}
	ErrForbidden      = &Error{Code: futurev1.Code_CODE_FORBIDDEN}
	ErrAlready        = &Error{Code: futurev1.Code_CODE_ALREADY}
	ErrRateLimited    = &Error{Code: futurev1.Code_CODE_RATE_LIMITED}
	ErrUnavailable    = &Error{Code: futurev1.Code_CODE_UNAVAILABLE}
	ErrRetryInOrder   = &Error{Code: futurev1.Code_CODE_RETRY_IN_ORDER}
	ErrIDReused       = &Error{Code: futurev1.Code_CODE_ID_REUSED}
	ErrPending        = &Error{Code: futurev1.Code_CODE_PENDING}
	ErrInternal       = &Error{Code: futurev1.Code_CODE_INTERNAL}
	ErrVersion        = &Error{Code: futurev1.Code_CODE_VERSION}
	ErrLimit          = &Error{Code: futurev1.Code_CODE_LIMIT}
	ErrDraining       = &Error{Code: futurev1.Code_CODE_DRAINING}
)

func (e *Error) Error() string {
	s := strings.TrimPrefix(e.Code.String(), "CODE_") // of a code from a later version the number
	if e.Field != "" {
		s += " " + e.Field
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// Is makes errors.Is compare codes.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// Proto is the error as it goes over the wire.
func (e *Error) Proto() *futurev1.Error {
	return &futurev1.Error{
		Code: e.Code, Message: e.Message, Field: e.Field,
		RetryAfterMs: uint32(min(e.RetryAfter.Milliseconds(), 1<<31)),
	}
}

// FromProto is the inverse of Proto.
func FromProto(p *futurev1.Error) *Error {
	return &Error{
		Code: p.GetCode(), Message: p.GetMessage(), Field: p.GetField(),
		RetryAfter: time.Duration(p.GetRetryAfterMs()) * time.Millisecond,
	}
}

// Invalid is the error for a field that breaks its rule.
func Invalid(field string, err error) *Error {
	return &Error{Code: futurev1.Code_CODE_INVALID, Field: field, Message: err.Error()}
}

// Errorf makes an error with a sentence for people.
func Errorf(code futurev1.Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}
