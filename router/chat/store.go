package chat

import (
	"context"
	"errors"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/eventlog"
)

// What stores answer; match with errors.Is. Any other error means that the database is away or broken: its caller answers
// UNAVAILABLE and changes nothing.
var (
	// ErrNotFound says that there is no such row.
	ErrNotFound = errors.New("chat: not found")
	// ErrNameTaken says that an account has that name, or had it before it was closed.
	ErrNameTaken = errors.New("chat: name taken")
	// ErrFenced says that somebody else writes this partition's history by now.
	ErrFenced = errors.New("chat: fenced: another writer has moved the partition's offset")
)

// Store is the database, by who asks for what. All times are Unix milliseconds. Methods are safe for concurrent use.
type Store interface {
	AccountStore
	FriendStore
	GroupStore
	OutboxStore
	MessageStore
	HistoryStore
	LogStore
}

// Account is a person's account.
type Account struct {
	ID   int64
	Name string
	// Email is empty if none was given.
	Email string
	// PasswordHash is in the PHC string format of argon2id.
	PasswordHash string
	CreatedMs    int64
}

// User is the account as others see it.
func (a Account) User() *pb.User { return &pb.User{Id: wire.FormatID(a.ID), Name: a.Name} }

// TokenHash is the SHA-256 of a session's token: the token itself is nowhere stored.
type TokenHash [32]byte

// Session is a device that is logged in.
type Session struct {
	ID         int64
	Account    Account
	DeviceID   string
	DeviceName string
	CreatedMs  int64
}

// AccountStore has accounts and their sessions.
type AccountStore interface {
	// CreateAccount stores a new account and gives it its id. ErrNameTaken. Names are compared byte by byte.
	CreateAccount(ctx context.Context, a Account) (Account, error)
	// AccountByName finds an account. ErrNotFound.
	AccountByName(ctx context.Context, name string) (Account, error)
	// SetPasswordHash puts another hash in the place of old, and leaves an account alone whose hash is not old any more.
	SetPasswordHash(ctx context.Context, account int64, old, hash string) error
	// CreateSession stores a session of s.Account.ID, and gives it its id. An older one of the same account and device ends.
	CreateSession(ctx context.Context, s Session, token TokenHash) (Session, error)
	// SessionByToken finds a session that has not ended, with its account. ErrNotFound.
	SessionByToken(ctx context.Context, token TokenHash) (Session, error)
	// EndSession ends a session. One that has ended, or never was, is no error.
	EndSession(ctx context.Context, id int64) error
}

// PairState is how two people stand to each other.
type PairState uint8

// States of a pair. They are stored: never renumber.
const (
	PairNone PairState = 0
	// PairAsked: AskedBy has asked, the other has not answered.
	PairAsked   PairState = 1
	PairFriends PairState = 2
)

// Pair is two people, Lo < Hi.
type Pair struct {
	Lo, Hi Account // ID and Name
	State  PairState
	// AskedBy is who asked last, Lo.ID or Hi.ID; 0 if nobody ever did.
	AskedBy  int64
	Greeting string
	// Version rises by one with each change.
	Version uint64
	// ChangedMs is when the state last changed.
	ChangedMs int64
}

// Other is the one of the pair that is not user.
func (p Pair) Other(user int64) Account {
	if p.Lo.ID == user {
		return p.Hi
	}
	return p.Lo
}

// FriendStore has who knows whom.
type FriendStore interface {
	// Pair reads how two accounts stand. Of two that never met it gives PairNone, version 0, with IDs but perhaps no names.
	Pair(ctx context.Context, a, b int64) (Pair, error)
	// Pairs reads all pairs of a user that are not PairNone, at most limit, by the other's name.
	Pairs(ctx context.Context, user int64, limit int) ([]Pair, error)
	// CountPairs counts a user's pairs that are not PairNone.
	CountPairs(ctx context.Context, user int64) (int, error)
	// ChangePair reads the pair under its row lock, asks decide, and stores what decide returns together with an outbox row
	// that holds its notice, in one transaction. Version in what decide gets is the old one; decide returns it raised by one. An
	// error from decide is given back as it is, and nothing is changed. decide may be called more than once (deadlocks are
	// retried) and must only compute. Both accounts exist: lo < hi.
	ChangePair(ctx context.Context, lo, hi int64, decide func(Pair) (Pair, *pb.Message, error)) (Pair, Outgoing, error)
}

// Outgoing is a row of the outbox: a message that was decided together with a change and must still reach the log.
type Outgoing struct {
	ID      int64
	Message *pb.Message
	// Version orders the rows of a conversation.
	Version uint64
}

// OutboxStore has what must still reach the log. A row is removed only once the log has it.
type OutboxStore interface {
	// Unsent reads rows, oldest first; conversation, if not empty, only its own, and only those of a Version up to upTo.
	Unsent(ctx context.Context, conversation string, upTo uint64, limit int) ([]Outgoing, error)
	// Sent removes rows. One that is gone is no error.
	Sent(ctx context.Context, ids []int64) error
}

// Head is where a conversation and a member's reading stand in the database.
type Head struct {
	Conversation string
	// Seq is of the newest message that history has; 0: none.
	Seq uint64
	// ReadSeq is how far the member has read.
	ReadSeq uint64
	// Unread counts the messages of others above ReadSeq that history has.
	Unread uint32
}

// MessageStore reads messages. What it knows of a partition ends at the partition's history offset.
type MessageStore interface {
	// Messages reads at most limit messages with after < seq < before (0: no bound), always given in seq order; forward takes the
	// lowest, else the highest. prev_seq is set, as the valid message before it in the conversation, and prev_known.
	Messages(ctx context.Context, conversation string, after, before uint64, limit int, forward bool) ([]*pb.Message, error)
	// FindMessage finds a message by its identity. ErrNotFound.
	FindMessage(ctx context.Context, id Identity) (*pb.Message, error)
	// LastMessages gives the newest message of each conversation that has one.
	LastMessages(ctx context.Context, conversations []string) (map[string]*pb.Message, error)
	// Heads reads the heads of all of a user's conversations.
	Heads(ctx context.Context, user int64) ([]Head, error)
	// Head reads one of them. ErrNotFound if the user has no such conversation in history.
	Head(ctx context.Context, user int64, conversation string) (Head, error)
	// MarkRead moves the user's reading up to the newest message that history has at or below seq; never down. A conversation
	// that history does not know yet is left alone. It returns the head after.
	MarkRead(ctx context.Context, user int64, conversation string, seq uint64) (Head, error)
}

// DeadRecord is a record that can never be processed.
type DeadRecord struct {
	Partition int32
	Offset    int64
	Key       []byte
	Value     []byte
	Headers   []eventlog.Header
	TimeMs    int64
	// Reason is for operators and holds no message text.
	Reason string
}

// Batch is a stretch of one partition for the database: all records from From on, below Next.
type Batch struct {
	Topic     string
	Partition int32
	// From is the offset that the writer believes is due.
	From int64
	// Next is the offset due after the batch.
	Next int64
	// Messages, in seq order, with Seq and TimeMs set. A message whose identity is known, or comes twice here, is not stored
	// again: the lower seq stays.
	Messages []*pb.Message
	// Checks says of each message what its sender's right was checked against. Nil: of none is that known.
	Checks []Check
	// Dead are the records that could not be read, and those of a kind that this program does not know.
	Dead []DeadRecord
}

// Check is what a sender's right was checked against: Record.Checked and Record.Version.
type Check struct {
	Checked bool
	Version uint64
}

// Written counts what WriteBatch did not store: duplicates, of those with other content, and invalid messages.
type Written struct{ Duplicates, Differing, Invalid int }

// HistoryStore is written by the history consumer alone.
type HistoryStore interface {
	// WriteBatch stores a batch and moves the partition's offset from From to Next, all in one transaction. ErrFenced if the
	// offset is not From: nothing is written. A partition without an offset stands at 0. It keeps the closings among the messages,
	// and does not store what is invalid by those that came before (see Closings): not even as the first of its identity.
	WriteBatch(ctx context.Context, b Batch) (Written, error)
	// HistoryOffsets gives the next offset due per partition, for those that have one.
	HistoryOffsets(ctx context.Context, topic string) (map[int32]int64, error)
}

// LogStore remembers the log.
type LogStore interface {
	// LogState reads what is remembered of a topic, with history's offsets as Seen. ErrNotFound.
	LogState(ctx context.Context, topic string) (eventlog.State, error)
	// SaveLogState remembers a topic, replacing what was remembered but its Seen.
	SaveLogState(ctx context.Context, s eventlog.State) error
	// NextRouterEpoch gives a number for a partition's new owner, higher than all that were given for it before.
	NextRouterEpoch(ctx context.Context, topic string, partition int32) (uint64, error)
}
