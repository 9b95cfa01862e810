package future

import (
	"errors"
	"fmt"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

// Error is what a node answered instead of what was asked for; errors.As finds it, errors.Is compares its code.
type Error = wire.Error

// What a node may answer, one error a code; to compare with by errors.Is. PROTOCOL.md and future.proto tell each.
var (
	ErrInvalid        = wire.ErrInvalid
	ErrUnsupported    = wire.ErrUnsupported
	ErrNotLoggedIn    = wire.ErrNotLoggedIn
	ErrTooLarge       = wire.ErrTooLarge
	ErrBadCredentials = wire.ErrBadCredentials
	ErrSessionEnded   = wire.ErrSessionEnded
	ErrNameTaken      = wire.ErrNameTaken
	ErrNotFound       = wire.ErrNotFound
	ErrNotFriends     = wire.ErrNotFriends
	ErrForbidden      = wire.ErrForbidden
	ErrAlready        = wire.ErrAlready
	ErrRateLimited    = wire.ErrRateLimited
	ErrUnavailable    = wire.ErrUnavailable
	ErrRetryInOrder   = wire.ErrRetryInOrder
	ErrIDReused       = wire.ErrIDReused
	ErrPending        = wire.ErrPending
	ErrInternal       = wire.ErrInternal
	ErrVersion        = wire.ErrVersion
	ErrLimit          = wire.ErrLimit
	ErrDraining       = wire.ErrDraining
)

// What the SDK itself may answer.
var (
	// ErrClosed: Close was called.
	ErrClosed = errors.New("the client is closed")
	// ErrStayAway: the server told this client not to come back until a person acts. It is in the tree of ErrReplaced and
	// of every other reason to stay away. Login, Register or Reconnect is how a person acts.
	ErrStayAway = errors.New("the server told this client to stay away")
	// ErrReplaced: the same device logged in on another connection.
	ErrReplaced = fmt.Errorf("this device logged in elsewhere: %w", ErrStayAway)
	// ErrDisconnected: the connection ended while the request was under way; whether it was carried out is not known.
	ErrDisconnected = errors.New("the connection ended before the answer")
	// ErrOutboxFull: as many messages await their acknowledgement as WithOutbox allows.
	ErrOutboxFull = errors.New("the outbox is full")
	// ErrInsecure: a password would cross a network in clear. Use WithTLS, or WithInsecurePasswords where that is meant.
	ErrInsecure = errors.New("refused to send a password over a connection that is not encrypted")
	// ErrProtocol: the server sent what the protocol does not allow.
	ErrProtocol = errors.New("the server broke the protocol")
	// ErrLocked: another process uses the folder given by WithDir.
	ErrLocked = errors.New("the folder is in use by another process")
	// ErrAccountChanged: the message was written for another account, or for another cluster, than the one that is logged in now.
	ErrAccountChanged = errors.New("the message belongs to another account or cluster")
	// ErrUnreachable: no address of the cluster could be reached.
	ErrUnreachable = errors.New("no node could be reached")
)

// closingError is the error that a Closing event stands for.
func closingError(c *pb.Closing) error {
	var err error
	switch c.GetReason() {
	case pb.Closing_REASON_SESSION_ENDED:
		err = ErrSessionEnded
	case pb.Closing_REASON_REPLACED:
		return ErrReplaced
	case pb.Closing_REASON_TOO_LARGE:
		err = fmt.Errorf("%w: %w", ErrTooLarge, ErrStayAway)
	case pb.Closing_REASON_VERSION:
		err = fmt.Errorf("%w: %w", ErrVersion, ErrStayAway)
	default:
		err = fmt.Errorf("the node closed the connection (%s)", reasonName(c.GetReason()))
		if staysAway(c.GetReason()) {
			err = fmt.Errorf("%w: %w", err, ErrStayAway)
		}
	}
	if m := clip(c.GetMessage(), maxNote); m != "" {
		err = fmt.Errorf("%w: %s", err, m)
	}
	return err
}

func staysAway(r pb.Closing_Reason) bool { return r < pb.Closing_REASON_DRAINING }

func reasonName(r pb.Closing_Reason) string {
	if name, ok := pb.Closing_Reason_name[int32(r)]; ok {
		return name[len("REASON_"):]
	}
	return fmt.Sprintf("reason %d", r)
}
