package tui

import (
	"context"
	"fmt"
	"strings"
	"time"

	future "github.com/futurechat/future/clientsdk"
)

// welcome says what waits for the person.
func (t *terminal) welcome(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// The friends after the conversations: what a conversation's newest message told of them shows in the list then.
	list, listErr := t.client.Conversations(ctx)
	if err := t.loadFriends(ctx); err != nil {
		t.say("your friends cannot be had now: %s", explain(err))
		return
	}
	var friends []future.Friend
	for _, f := range t.sorted() {
		switch f.State {
		case future.IsFriend:
			friends = append(friends, f)
		case future.AskedByThem:
			t.say("%s asks to be friends: %s /accept %s or /reject %s", visible(f.User.Name), quote(f.Greeting), visible(f.User.Name), visible(f.User.Name))
		}
	}
	if listErr == nil {
		for _, c := range list {
			if c.Last != nil {
				t.told[c.ID] = c.Last.Seq // the SDK brings again what was missed
			}
			if c.Unread > 0 && !strings.HasPrefix(c.ID, "n:") {
				t.unread[c.ID] = c.Unread
				t.say("%d unread from %s", c.Unread, t.nameOfChat(c))
			}
		}
	}
	switch len(friends) {
	case 0:
		t.say("/add NAME GREETING asks somebody to be friends; /help lists the rest")
	case 1:
		if err := t.choose(ctx, friends[0]); err != nil {
			t.say("%s", explain(err))
		}
	default:
		t.say("/to NAME chooses whom you write to; /friends, /help")
	}
}

// message is one that came.
func (t *terminal) message(ctx context.Context, m future.Message) {
	if m.Own && t.mine[m.ID] {
		delete(t.mine, m.ID) // typed here
		return
	}
	if m.Seq <= t.told[m.Conversation] {
		return
	}
	t.told[m.Conversation] = m.Seq
	if m.Friend != nil {
		t.notice(ctx, m)
		return
	}
	if m.Conversation == t.current {
		t.show(m)
		return
	}
	if m.Own {
		return // written on another device, in a chat that is not open here
	}
	t.unread[m.Conversation]++
	name := visible(m.Sender.Name)
	if name == "" {
		name = t.nameOf(m.Conversation)
	}
	t.say("%s wrote to you (%d unread): /to %s", name, t.unread[m.Conversation], name)
}

// show prints a message of the open chat.
func (t *terminal) show(m future.Message) {
	if day := m.Time.Format("Monday, 2 January 2006"); day != t.day {
		if t.day != "" || day != time.Now().Format("Monday, 2 January 2006") {
			t.print("--- " + day + "\n")
		}
		t.day = day
	}
	t.shown[m.Conversation] = max(t.shown[m.Conversation], m.Seq)
	t.told[m.Conversation] = max(t.told[m.Conversation], m.Seq)
	name := visible(m.Sender.Name)
	if name == "" {
		name = "?"
	}
	text := visibleLines(m.Text)
	if m.Friend != nil {
		text = noticeText(m.Friend)
	} else if m.Text == "" {
		text = "(a message that this version cannot show)"
	}
	t.print(fmt.Sprintf("[%s] %s: %s\n", m.Time.Format("15:04"), name, text))
}

func noticeText(n *future.FriendNotice) string {
	by, to := visible(n.By.Name), visible(n.To.Name)
	switch n.Change {
	case future.FriendRequested:
		return fmt.Sprintf("(%s asked %s to be friends: %s)", by, to, quote(n.Greeting))
	case future.FriendAccepted:
		return fmt.Sprintf("(%s and %s are friends now)", by, to)
	case future.FriendRejected:
		return fmt.Sprintf("(%s turned down %s)", by, to)
	case future.FriendRemoved:
		return fmt.Sprintf("(%s ended the friendship with %s)", by, to)
	}
	return "(something changed between you)"
}

// notice tells of a change between the person and somebody.
func (t *terminal) notice(ctx context.Context, m future.Message) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := t.loadFriends(ctx); err != nil && t.opts.Logger != nil {
		t.opts.Logger.Warn("loading friends", "err", err)
	}
	t.shown[m.Conversation] = max(t.shown[m.Conversation], m.Seq)
	n, by, to := m.Friend, visible(m.Friend.By.Name), visible(m.Friend.To.Name)
	mine := n.By.Name == t.name
	switch {
	case n.Change == future.FriendRequested && !mine:
		t.say("%s asks to be friends: %s /accept %s or /reject %s", by, quote(n.Greeting), by, by)
	case n.Change == future.FriendAccepted && !mine:
		t.say("%s accepted: you are friends", by)
		if f, ok := t.friend(n.By.Name); ok && t.current == "" {
			if err := t.choose(ctx, f); err != nil {
				t.say("%s", explain(err))
			}
		}
	case n.Change == future.FriendRejected && !mine:
		t.say("%s turned you down", by)
	case n.Change == future.FriendRemoved && !mine:
		t.say("%s ended the friendship with %s", by, to)
	}
}
