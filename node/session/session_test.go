package session_test

import (
	"testing"
	"time"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/node/session"
)

var now = time.UnixMilli(1_700_000_000_000)

// script drives one session and names its effects shortly: `7:OK`, `run 7`, `register`, `close REASON`.
type script struct {
	t *testing.T
	s *session.Session
}

func newScript(t *testing.T, l session.Limits) *script {
	return &script{t, session.New(l, session.Hello{RetryOnOverload: time.Second})}
}

func (s *script) step(e session.Event, want ...string) {
	s.t.Helper()
	got := []string{}
	for _, e := range s.s.Step(now, e) {
		got = append(got, name(e))
	}
	if len(got) != len(want) {
		s.t.Fatalf("%T gave %q, want %q", e, got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			s.t.Fatalf("%T gave %q, want %q", e, got, want)
		}
	}
}

func name(e session.Effect) string {
	switch e := e.(type) {
	case session.Write:
		id := wire.FormatID(int64(e.Envelope.GetId())) + ":"
		switch b := e.Envelope.GetBody().(type) {
		case *pb.Envelope_Error:
			return id + b.Error.GetCode().String()[len("CODE_"):]
		case *pb.Envelope_Sent:
			return id + "sent"
		case *pb.Envelope_Session:
			if b.Session.GetDegraded() {
				return id + "session degraded"
			}
			return id + "session"
		case *pb.Envelope_HelloOk:
			return id + "hello"
		case *pb.Envelope_CompareHeads:
			return "compare"
		}
		return id + "ok"
	case session.Run:
		return "run " + wire.FormatID(int64(e.Request.GetId()))
	case session.Forward:
		return "forward"
	case session.Register:
		return "register"
	case session.Append:
		return "append"
	case session.Unregister:
		return "unregister"
	case session.Close:
		return "close " + e.Reason.String()[len("REASON_"):]
	}
	return "?"
}

func hello(id uint64) session.Event {
	return session.Received{Envelope: &pb.Envelope{Id: id, Body: &pb.Envelope_Hello{Hello: &pb.HelloRequest{Version: 1}}}}
}

func ping(id uint64) session.Event {
	return session.Received{Envelope: &pb.Envelope{Id: id, Body: &pb.Envelope_Ping{Ping: &pb.PingRequest{}}}}
}

func friends(id uint64) session.Event {
	return session.Received{Envelope: &pb.Envelope{Id: id, Body: &pb.Envelope_ListFriends{ListFriends: &pb.ListFriendsRequest{}}}}
}

func resume(id uint64) session.Event {
	return session.Received{Envelope: &pb.Envelope{Id: id, Body: &pb.Envelope_Resume{Resume: &pb.ResumeRequest{
		Token: "t", Device: &pb.Device{Id: "0193b1a0-0000-7000-8000-000000000001"},
	}}}}
}

func send(id uint64, msg string) session.Event {
	return session.Received{Envelope: &pb.Envelope{Id: id, Body: &pb.Envelope_Send{Send: &pb.SendRequest{
		Conversation: "d:1:2", ClientMsgId: msg, Payload: &pb.Payload{Kind: &pb.Payload_Text{Text: &pb.Text{Text: "x"}}},
	}}}}
}

func admitted(msg string) session.Event {
	return session.Admitted{Conversation: "d:1:2", ClientMsgID: msg}
}

func appended(msg string, err *wire.Error) session.Event {
	return session.Appended{Conversation: "d:1:2", ClientMsgID: msg, Seq: 1, Time: now, Err: err}
}

func (s *script) enter() {
	s.t.Helper()
	s.step(hello(1), "1:hello")
	s.step(resume(2), "run 2")
	s.step(session.Done{Entered: 1, Body: &pb.Envelope{Body: &pb.Envelope_Session{Session: &pb.SessionResponse{}}}}, "register")
	s.step(session.Registered{}, "2:session")
}

func ok() session.Event {
	return session.Done{Body: &pb.Envelope{Body: &pb.Envelope_Ok{Ok: &pb.Ok{}}}}
}

var away = &wire.Error{Code: pb.Code_CODE_UNAVAILABLE, RetryAfter: time.Second}

func TestHandshake_InOrderOnly(t *testing.T) {
	s := newScript(t, session.DefaultLimits)
	s.step(friends(5), "5:NOT_LOGGED_IN")
	s.step(resume(6), "6:NOT_LOGGED_IN")
	s.step(hello(1), "1:hello")
	s.step(hello(2), "2:ALREADY")
	s.step(friends(3), "3:NOT_LOGGED_IN")
	s.step(session.Received{Envelope: &pb.Envelope{Id: 9}}, "9:UNSUPPORTED")
	s.step(ping(4), "4:ok")
}

func TestHandshake_AnOldVersionIsClosed(t *testing.T) {
	s := newScript(t, session.DefaultLimits)
	s.step(session.Received{Envelope: &pb.Envelope{Id: 1, Body: &pb.Envelope_Hello{Hello: &pb.HelloRequest{}}}}, "1:VERSION", "close VERSION")
}

// I4: presence is written before anything that reads heads may run, and before a message can come.
func TestI4_NothingRunsBeforePresenceIsWritten(t *testing.T) {
	s := newScript(t, session.DefaultLimits)
	s.step(hello(1), "1:hello")
	s.step(resume(2), "run 2")
	s.step(friends(3))
	s.step(session.Done{Entered: 1, Body: &pb.Envelope{Body: &pb.Envelope_Session{Session: &pb.SessionResponse{}}}}, "register")
	s.step(friends(4))
	s.step(session.Deliver{})
	s.step(session.Registered{}, "2:session", "run 3")
	s.step(session.Deliver{}, "forward")
	s.step(ok(), "3:ok", "run 4")
	s.step(session.Ended{}, "unregister")
	s.step(ok())
}

func TestRequests_OneAtATimeAndBounded(t *testing.T) {
	s := newScript(t, session.Limits{Queue: 2, InFlight: 2, Held: 2})
	s.enter()
	s.step(friends(3), "run 3")
	s.step(friends(4))
	s.step(friends(5))
	s.step(friends(6), "6:RATE_LIMITED")
	s.step(ping(7), "7:ok")
	s.step(ok(), "3:ok", "run 4")
	s.step(ok(), "4:ok", "run 5")
	s.step(ok(), "5:ok")
}

func TestR18_AFailedSendHoldsBackWhatComesAfter(t *testing.T) {
	a, b, c := wire.NewMessageID(), wire.NewMessageID(), wire.NewMessageID()
	s := newScript(t, session.DefaultLimits)
	s.enter()
	s.step(send(3, a), "run 3")
	s.step(admitted(a))
	s.step(send(4, b), "run 4")
	s.step(admitted(b))
	s.step(appended(a, away), "3:UNAVAILABLE")
	s.step(appended(b, away), "4:UNAVAILABLE")
	s.step(send(5, c), "5:RETRY_IN_ORDER")
	s.step(send(6, b), "6:RETRY_IN_ORDER")
	s.step(send(7, a), "run 7")
	s.step(admitted(a))
	s.step(send(8, c), "8:RETRY_IN_ORDER")
	// Behind a in the log's queue: if a fails again, so does b.
	s.step(send(9, b), "run 9")
	s.step(admitted(b))
	s.step(appended(a, away), "7:UNAVAILABLE")
	s.step(appended(b, away), "9:UNAVAILABLE")
	s.step(send(10, b), "10:RETRY_IN_ORDER")
	s.step(send(11, a), "run 11")
	s.step(admitted(a))
	s.step(appended(a, nil), "11:sent")
	s.step(send(12, b), "run 12")
	s.step(admitted(b))
	s.step(appended(b, nil), "12:sent")
	s.step(send(13, c), "run 13")
}

// The second is being looked up in the database when the first fails: it must not go to the log then.
func TestR18_AFailureHoldsBackASendThatIsBeingChecked(t *testing.T) {
	a, b := wire.NewMessageID(), wire.NewMessageID()
	s := newScript(t, session.DefaultLimits)
	s.enter()
	s.step(send(3, a), "run 3")
	s.step(session.Prepared{}, "append")
	s.step(admitted(a))
	s.step(send(4, b), "run 4")
	s.step(appended(a, away), "3:UNAVAILABLE")
	s.step(session.Prepared{}, "4:RETRY_IN_ORDER")
	s.step(send(5, a), "run 5")
	s.step(session.Prepared{}, "append")
	s.step(admitted(a))
	s.step(send(6, b), "run 6")
	s.step(session.Prepared{}, "append") // behind the first in the log's queue
}

func TestR18_ARefusalForWantOfRoomHoldsBackToo(t *testing.T) {
	a, b := wire.NewMessageID(), wire.NewMessageID()
	s := newScript(t, session.Limits{Queue: 1, InFlight: 4, Held: 4})
	s.enter()
	s.step(friends(3), "run 3")
	s.step(friends(4))
	s.step(send(5, a), "5:RATE_LIMITED")
	s.step(ok(), "3:ok", "run 4")
	s.step(ok(), "4:ok")
	s.step(send(6, b), "6:RETRY_IN_ORDER")
	s.step(send(7, a), "run 7")
	s.step(session.Done{Err: wire.Errorf(pb.Code_CODE_NOT_FRIENDS, "no")}, "7:NOT_FRIENDS")
	s.step(send(8, b), "run 8")
}

func TestSend_AResendJoinsItsFirstTry(t *testing.T) {
	a := wire.NewMessageID()
	s := newScript(t, session.DefaultLimits)
	s.enter()
	s.step(send(3, a), "run 3")
	s.step(admitted(a))
	s.step(send(4, a))
	s.step(appended(a, nil), "3:sent", "4:sent")
	s.step(appended(a, nil))
}

func TestSend_ResendsOfOneMessageAreBounded(t *testing.T) {
	a := wire.NewMessageID()
	s := newScript(t, session.Limits{Queue: 1, InFlight: 2, Held: 4})
	s.enter()
	s.step(send(3, a), "run 3")
	s.step(admitted(a))
	s.step(send(4, a))
	s.step(send(5, a), "5:RATE_LIMITED")
	s.step(appended(a, nil), "3:sent", "4:sent")
}

func TestSend_WhatAwaitsTheLogIsBounded(t *testing.T) {
	a, b, c := wire.NewMessageID(), wire.NewMessageID(), wire.NewMessageID()
	s := newScript(t, session.Limits{Queue: 1, InFlight: 2, Held: 4})
	s.enter()
	s.step(send(3, a), "run 3")
	s.step(admitted(a))
	s.step(send(4, b), "run 4")
	s.step(admitted(b))
	s.step(send(5, c), "5:RATE_LIMITED")
	s.step(appended(a, nil), "3:sent")
	s.step(send(6, c), "run 6")
}

// The log's answer for one message comes while the next is still being checked.
func TestSend_AnAnswerIsForItsOwnMessage(t *testing.T) {
	a, b := wire.NewMessageID(), wire.NewMessageID()
	s := newScript(t, session.DefaultLimits)
	s.enter()
	s.step(send(3, a), "run 3")
	s.step(admitted(a))
	s.step(send(4, b), "run 4")
	s.step(appended(a, nil), "3:sent")
	s.step(admitted(b))
	s.step(appended(b, nil), "4:sent")
}

func TestSend_WhatCanNeverGoThroughHoldsNothingBack(t *testing.T) {
	a, b := wire.NewMessageID(), wire.NewMessageID()
	s := newScript(t, session.DefaultLimits)
	s.enter()
	s.step(send(3, a), "run 3")
	s.step(admitted(a))
	s.step(appended(a, wire.Errorf(pb.Code_CODE_TOO_LARGE, "too large")), "3:TOO_LARGE")
	s.step(send(4, b), "run 4")
}

// One message that fails again and again while the log is away is held once.
func TestHeldSends_OneThatFailsForLongCountsOnce(t *testing.T) {
	a := wire.NewMessageID()
	s := newScript(t, session.Limits{Queue: 1, InFlight: 4, Held: 2})
	s.enter()
	for i := range uint64(100) {
		s.step(send(3+i, a), "run "+wire.FormatID(int64(3+i)))
		s.step(admitted(a))
		s.step(appended(a, away), wire.FormatID(int64(3+i))+":UNAVAILABLE")
	}
	s.step(send(200, a), "run 200")
	s.step(admitted(a))
	s.step(appended(a, nil), "200:sent")
	s.step(send(201, wire.NewMessageID()), "run 201")
}

// Presence tells a session that was degraded once more when it is registered after all: that answers nothing.
func TestRegistered_DegradedIsTold_AndAnsweredOnce(t *testing.T) {
	s := newScript(t, session.DefaultLimits)
	s.step(hello(1), "1:hello")
	s.step(resume(2), "run 2")
	s.step(session.Done{Entered: 1, Body: &pb.Envelope{Body: &pb.Envelope_Session{Session: &pb.SessionResponse{}}}}, "register")
	s.step(session.Registered{Degraded: true}, "2:session degraded")
	s.step(session.Registered{})
	s.step(session.Compare{}, "compare")
}

func TestLogout_EndsTheSessionOnce(t *testing.T) {
	s := newScript(t, session.DefaultLimits)
	s.enter()
	s.step(session.Received{Envelope: &pb.Envelope{Id: 3, Body: &pb.Envelope_Logout{Logout: &pb.LogoutRequest{}}}}, "run 3")
	s.step(session.Done{Left: true, Body: &pb.Envelope{Body: &pb.Envelope_Ok{Ok: &pb.Ok{}}}}, "3:ok", "unregister", "close SESSION_ENDED")
	s.step(session.Ended{})
}

// The log may answer before the shell says that it has taken the message; the session goes on at once, and the late word of the
// shell belongs to nothing.
func TestSend_AnswerBeforeAdmitted(t *testing.T) {
	idA, idB := wire.NewMessageID(), wire.NewMessageID()
	s := newScript(t, session.DefaultLimits)
	s.enter()
	s.step(send(3, idA), "run 3")
	s.step(send(4, idB))
	s.step(appended(idA, nil), "3:sent", "run 4")
	s.step(admitted(idA))
	s.step(admitted(idB))
	s.step(appended(idB, nil), "4:sent")
}

// The late word is not of the message's resend either, which may not have reached the log.
func TestSend_LateAdmittedIsNotOfTheResend(t *testing.T) {
	id := wire.NewMessageID()
	s := newScript(t, session.DefaultLimits)
	s.enter()
	s.step(send(3, id), "run 3")
	s.step(appended(id, away), "3:UNAVAILABLE")
	s.step(send(4, id), "run 4")
	s.step(admitted(id))
	s.step(session.Done{Body: &pb.Envelope{Body: &pb.Envelope_Sent{Sent: &pb.SendResponse{}}}}, "4:sent")
}

// A resend that the database knows is answered at once, and holds back nothing any more.
func TestSend_ResendThatIsKnown_FreesItsConversation(t *testing.T) {
	idA, idB := wire.NewMessageID(), wire.NewMessageID()
	s := newScript(t, session.DefaultLimits)
	s.enter()
	s.step(send(3, idA), "run 3")
	s.step(admitted(idA))
	s.step(appended(idA, away), "3:UNAVAILABLE")
	s.step(send(4, idB), "4:RETRY_IN_ORDER")
	s.step(send(5, idA), "run 5")
	s.step(session.Done{Body: &pb.Envelope{Body: &pb.Envelope_Sent{Sent: &pb.SendResponse{}}}}, "5:sent")
	s.step(send(6, idB), "run 6")
}

// What waits in the queue came before what found it full, and goes before it.
func TestR18_ARefusalDoesNotHoldBackWhatCameBefore(t *testing.T) {
	a, b, c := wire.NewMessageID(), wire.NewMessageID(), wire.NewMessageID()
	s := newScript(t, session.Limits{Queue: 1, InFlight: 4, Held: 4})
	s.enter()
	s.step(friends(3), "run 3")
	s.step(send(4, a))
	s.step(send(5, b), "5:RATE_LIMITED")
	s.step(ok(), "3:ok", "run 4")
	s.step(admitted(a))
	s.step(send(6, c), "6:RETRY_IN_ORDER")
	s.step(send(7, b), "run 7")
	s.step(admitted(b))
	// Should a fail now, b fails behind it, and a is the first to be resent.
	s.step(appended(a, away), "4:UNAVAILABLE")
	s.step(appended(b, away), "7:UNAVAILABLE")
	s.step(send(8, b), "8:RETRY_IN_ORDER")
	s.step(send(9, a), "run 9")
}

// Told to compare again before it has begun to, a client would do twice the work for one answer.
func TestCompare_OnceUntilTheClientSyncs(t *testing.T) {
	s := newScript(t, session.DefaultLimits)
	s.enter()
	s.step(session.Compare{Conversations: []string{"d:1:2"}}, "compare")
	s.step(session.Compare{}, "compare")
	s.step(session.Compare{})
	s.step(session.Compare{Conversations: []string{"d:1:2"}})
	s.step(friends(3), "run 3")
	s.step(session.Received{Envelope: &pb.Envelope{Id: 4, Body: &pb.Envelope_Sync{Sync: &pb.SyncRequest{}}}})
	s.step(session.Compare{})
	s.step(ok(), "3:ok", "run 4")
	s.step(session.Compare{}, "compare")
	s.step(ok(), "4:ok")
}

// A client that sends on and on while nothing can be taken must not make the node remember all of it.
func TestHeldSends_AreBounded(t *testing.T) {
	s := session.New(session.Limits{Queue: 1, InFlight: 4, Held: 2}, session.Hello{RetryOnOverload: time.Second})
	sc := &script{t, s}
	sc.enter()
	sc.step(friends(3), "run 3")
	sc.step(friends(4))
	const most = 16
	for i := range uint64(most) {
		sc.step(send(10+i, wire.NewMessageID()), wire.FormatID(int64(10+i))+":RATE_LIMITED")
	}
	sc.step(send(50, wire.NewMessageID()), "50:RATE_LIMITED", "close OVERLOADED")
}

// A node that goes down answers what it has taken, refuses what comes after as not carried out, and ends the connection then.
func TestR35_Drain_WhatWasTakenIsAnsweredFirst(t *testing.T) {
	id, late := wire.NewMessageID(), wire.NewMessageID()
	s := newScript(t, session.DefaultLimits)
	s.enter()
	s.step(send(3, id), "run 3")
	s.step(admitted(id))
	s.step(friends(4), "run 4")
	s.step(friends(5))
	s.step(session.Drain{})
	s.step(send(6, late), "6:DRAINING")
	s.step(ping(7), "7:ok")
	s.step(session.Deliver{}, "forward")
	s.step(ok(), "4:ok", "run 5")
	s.step(appended(id, nil), "3:sent")
	s.step(ok(), "5:ok", "close DRAINING")
	s.step(friends(8), "8:DRAINING")
	s.step(session.Ended{}, "unregister")
}

func TestR35_Drain_AtOnceIfNothingIsUnderWay(t *testing.T) {
	s := newScript(t, session.DefaultLimits)
	s.step(session.Drain{}, "close DRAINING")
	s = newScript(t, session.DefaultLimits)
	s.enter()
	s.step(session.Drain{}, "close DRAINING")
}

// A log-in that is under way is finished: its token must reach the client.
func TestR35_Drain_ALogInIsFinished(t *testing.T) {
	s := newScript(t, session.DefaultLimits)
	s.step(hello(1), "1:hello")
	s.step(resume(2), "run 2")
	s.step(session.Drain{})
	s.step(session.Done{Entered: 1, Body: &pb.Envelope{Body: &pb.Envelope_Session{Session: &pb.SessionResponse{}}}}, "register")
	s.step(session.Registered{}, "2:session", "close DRAINING")
}

// What the log has not answered is waited for, though nothing else is under way: its outcome is to reach the client.
func TestR35_Drain_WaitsForTheLog(t *testing.T) {
	id := wire.NewMessageID()
	s := newScript(t, session.DefaultLimits)
	s.enter()
	s.step(send(3, id), "run 3")
	s.step(admitted(id))
	s.step(session.Drain{})
	s.step(appended(id, nil), "3:sent", "close DRAINING")
}
