// Package chattest is the conformance suite that every chat.Store passes.
package chattest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/eventlog"
)

// Wait bounds each call, so that a store that hangs fails its test instead of the run.
const Wait = 60 * time.Second

type suite struct {
	open func(t *testing.T) chat.Store
}

// Run runs the suite; open makes an empty store for each test, and sees to its end.
func Run(t *testing.T, open func(t *testing.T) chat.Store) {
	s := suite{open}
	for _, test := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"AccountNamesAreComparedByteByByte", s.names},
		{"AccountNameIsTakenOnce", s.taken},
		{"AccountNameIsTakenOnceOfManyAtATime", s.takenAtOnce},
		{"AccountKeepsWhatItWasGiven", s.account},
		{"PasswordHashIsReplacedOnlyIfUnchanged", s.passwordHash},
		{"SessionIsFoundByItsTokenAlone", s.session},
		{"SessionOfTheSameDeviceReplaces", s.sameDevice},
		{"SessionOfTheSameDeviceManyAtATime", s.sameDeviceAtOnce},
		{"SessionEndsOnce", s.endSession},

		{"PairOfStrangers", s.strangers},
		{"ChangePairStoresWhatWasDecided", s.changePair},
		{"ChangePairRefusedChangesNothing", s.changeRefused},
		{"ChangePairAtOnceIsSerialised", s.changeAtOnce},
		{"PairsAreListedByName", s.pairs},
		{"OutboxGivesRowsInOrder", s.outbox},

		{"GroupIsMadeWithItsMembers", s.createGroup},
		{"ChangeGroupKeepsSpans", s.changeGroup},
		{"ChangeGroupAtOnceIsSerialised", s.changeGroupAtOnce},
		{"GroupOf10000IsOneNotice", s.largeGroup},
		{"GroupIsReadWhileAMember", s.readable},
		{"GroupHeadsAreCountedWhileAMember", s.groupHeads},

		{"WriteBatchMovesTheOffset", s.offsets},
		{"WriteBatchIsFenced", s.fenced},
		{"WriteBatchOfManyWritersOneWins", s.fencedAtOnce},
		{"WriteBatchIsAtomic", s.atomic},
		{"WriteBatchDuplicatesKeepTheLowerSeq", s.duplicates},
		{"WriteBatchIdentityIsOfConversationAndSender", s.identity},
		{"WriteBatchTakesDeadRecords", s.dead},
		{"WriteBatchLarge", s.large},
		{"WriteBatchLeavesOutWhatIsInvalid", s.invalid},
		{"WriteBatchInvalidIsNoFirst", s.invalidIsNoFirst},
		{"WriteBatchInvalidAlone", s.invalidAlone},

		{"MessagesPageBothWays", s.pages},
		{"MessagesOfEpochs", s.epochs},
		{"MessagesAreAsTheyWereWritten", s.fidelity},
		{"AnyTextIsSafe", s.texts},
		{"FindMessage", s.find},
		{"LastMessages", s.last},

		{"UnreadCountsTheOthersMessages", s.unread},
		{"UnreadIsExactWhateverTheOrder", s.unreadRandom},
		{"MarkReadNeverGoesDownOrBeyond", s.markRead},
		{"MarkReadManyAtATime", s.markReadAtOnce},
		{"HeadsAreOfMembersOnly", s.heads},

		{"LogStateIsRemembered", s.logState},
		{"RouterEpochRises", s.routerEpoch},
		{"RouterEpochRisesManyAtATime", s.routerEpochAtOnce},

		{"EndedContextIsAnError", s.ended},
	} {
		t.Run(test.name, test.run)
	}
}

// fixture is one test's store with what tests do all the time.
type fixture struct {
	*testing.T
	chat.Store
	ctx context.Context
}

func (s suite) fixture(t *testing.T) *fixture {
	ctx, cancel := context.WithTimeout(t.Context(), Wait)
	t.Cleanup(cancel)
	return &fixture{t, s.open(t), ctx}
}

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// people makes accounts of these names, and gives them in the order of their ids, which is theirs.
func (f *fixture) people(names ...string) []chat.Account {
	f.Helper()
	all := make([]chat.Account, 0, len(names))
	for i, name := range names {
		a, err := f.CreateAccount(f.ctx, chat.Account{Name: name, PasswordHash: "$argon2id$x", CreatedMs: int64(1000 + i)})
		f.must(err)
		if a.ID <= 0 || len(all) > 0 && a.ID <= all[len(all)-1].ID {
			f.Fatalf("id %d after %+v: ids rise from 1", a.ID, all)
		}
		all = append(all, a)
	}
	return all
}

// write writes one partition's messages at the offset that is due, and moves it behind the last.
func (f *fixture) write(partition int32, messages ...*pb.Message) (duplicates, differing int) {
	f.Helper()
	_, last := eventlog.SplitSeq(messages[len(messages)-1].GetSeq())
	written, err := f.WriteBatch(f.ctx, chat.Batch{
		Topic: chat.TopicMessages, Partition: partition, From: f.due(partition), Next: last + 1, Messages: messages,
	})
	f.must(err)
	return written.Duplicates, written.Differing
}

func (f *fixture) due(partition int32) int64 {
	f.Helper()
	offsets, err := f.HistoryOffsets(f.ctx, chat.TopicMessages)
	f.must(err)
	return offsets[partition]
}

func (f *fixture) page(conversation string) []*pb.Message {
	f.Helper()
	page, err := f.Messages(f.ctx, conversation, 0, 0, 10_000, true)
	f.must(err)
	return page
}

func (f *fixture) head(user int64, conversation string) chat.Head {
	f.Helper()
	h, err := f.Head(f.ctx, user, conversation)
	f.must(err)
	return h
}

// Message makes a message at an offset of epoch 1, with an identity of its own.
func Message(conversation string, sender, offset int64, text string) *pb.Message {
	return &pb.Message{
		Conversation: conversation, Seq: eventlog.Seq(1, offset), TimeMs: 1_700_000_000_000 + offset,
		Sender: &pb.User{Id: wire.FormatID(sender), Name: fmt.Sprint("user ", sender)}, ClientMsgId: wire.NewMessageID(),
		Payload: &pb.Payload{Kind: &pb.Payload_Text{Text: &pb.Text{Text: text}}},
	}
}

// again gives the same message at another offset.
func again(m *pb.Message, offset int64) *pb.Message {
	c := &pb.Message{
		Conversation: m.GetConversation(), Seq: eventlog.Seq(1, offset), TimeMs: m.GetTimeMs() + 1,
		Sender: m.GetSender(), ClientMsgId: m.GetClientMsgId(), Payload: m.GetPayload(), ReplyTo: m.GetReplyTo(),
	}
	return c
}

// other gives a message of the same identity that says something else.
func other(m *pb.Message, offset int64) *pb.Message {
	c := again(m, offset)
	c.Payload = &pb.Payload{Kind: &pb.Payload_Text{Text: &pb.Text{Text: "something else"}}}
	return c
}

// texts joins what the messages say, so that a failure shows it.
func texts(messages []*pb.Message) string {
	var all []string
	for _, m := range messages {
		all = append(all, m.GetPayload().GetText().GetText())
	}
	return strings.Join(all, " ")
}

// chained holds that each message's prev is the one before it in the conversation.
func (f *fixture) chained(messages []*pb.Message, first uint64) {
	f.Helper()
	prev := first
	for i, m := range messages {
		if !m.GetPrevKnown() || m.GetPrevSeq() != prev {
			f.Fatalf("message %d: prev is %d (known %t), want %d", i, m.GetPrevSeq(), m.GetPrevKnown(), prev)
		}
		prev = m.GetSeq()
	}
}
