package tui

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	future "github.com/futurechat/future/clientsdk"
)

// command is what may be typed. need is how many words must follow.
type command struct {
	name, args, help string
	need             int
	run              func(t *terminal, ctx context.Context, args string) error
}

// commands are in the order of /help. A function, so that the list and /help may name each other.
func commands() []command {
	return []command{
		{"/to", "NAME", "choose whom you write to", 1, (*terminal).to},
		{"/chat", "NAME", "the same", 1, (*terminal).to},
		{"/add", "NAME GREETING", "ask somebody to be friends", 1, (*terminal).add},
		{"/accept", "NAME", "become friends with who asks", 1, accept(true)},
		{"/reject", "NAME", "turn somebody down", 1, accept(false)},
		{"/remove", "NAME", "end a friendship; what was said stays readable", 1, (*terminal).remove},
		{"/friends", "", "your friends, who is online, who asks", 0, (*terminal).listFriends},
		{"/unread", "", "your chats and what is unread", 0, (*terminal).listUnread},
		{"/history", "[N]", "the last N messages of this chat (20)", 0, (*terminal).history},
		{"/who", "", "who you are and whom you write to", 0, (*terminal).who},
		{"/help", "", "this list", 0, (*terminal).help},
		{"/quit", "", "end; Ctrl-D does the same", 0, func(*terminal, context.Context, string) error { return errQuit }},
	}
}

// command carries out a typed line.
func (t *terminal) command(ctx context.Context, text string) error {
	if !strings.HasPrefix(text, "/") {
		t.send(text)
		return nil
	}
	if strings.HasPrefix(text, "//") {
		t.send(text[1:]) // a message that begins with a slash
		return nil
	}
	word, args, _ := strings.Cut(strings.TrimSpace(text), " ")
	args = strings.TrimSpace(args)
	list := commands()
	i := slices.IndexFunc(list, func(c command) bool { return c.name == word })
	if i < 0 {
		names := make([]string, len(list))
		for i, c := range list {
			names[i] = c.name
		}
		hint := "/help lists them"
		if near := nearest(word, names); len(near) > 0 {
			hint = "did you mean " + strings.Join(near, " or ") + "?"
		}
		t.say("there is no command %s: %s", visible(word), hint)
		return nil
	}
	c := list[i]
	if c.need > 0 && args == "" {
		t.say("usage: %s %s", c.name, c.args)
		return nil
	}
	asked, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := c.run(t, asked, args)
	if err != nil && !errors.Is(err, errQuit) {
		if ctx.Err() != nil || errors.Is(err, future.ErrStayAway) {
			return err
		}
		t.say("%s: %s", c.name, explain(err))
		err = nil
	}
	return err
}

func (t *terminal) help(context.Context, string) error {
	for _, c := range commands() {
		t.print(fmt.Sprintf("  %-24s %s\n", c.name+" "+c.args, c.help))
	}
	t.print("  anything else is sent to the friend you chose; // sends a line that begins with /\n")
	return nil
}

func (t *terminal) send(text string) {
	if strings.TrimSpace(text) == "" {
		return
	}
	if t.current == "" {
		t.say("to whom? /to NAME chooses a friend, /friends lists them")
		return
	}
	p, err := t.client.SendAsync(t.current, strings.ToValidUTF8(text, "\uFFFD"))
	if err != nil {
		t.say("NOT SENT: %s", explain(err))
		return
	}
	t.mine[p.ID] = true
}

func (t *terminal) add(ctx context.Context, args string) error {
	name, greeting := t.nameAndRest(args)
	if err := t.client.AddFriend(ctx, name, greeting); err != nil {
		return err
	}
	t.say("asked %s to be friends; you will be told when they answer", visible(name))
	return t.loadFriends(ctx)
}

// nameAndRest splits "NAME GREETING"; a name with spaces is put in quotes.
func (t *terminal) nameAndRest(args string) (name, rest string) {
	if quoted, ok := strings.CutPrefix(args, `"`); ok {
		if name, rest, ok = strings.Cut(quoted, `"`); ok {
			return name, strings.TrimSpace(rest)
		}
	}
	name, rest, _ = strings.Cut(args, " ")
	return name, strings.TrimSpace(rest)
}

func accept(yes bool) func(*terminal, context.Context, string) error {
	return func(t *terminal, ctx context.Context, args string) error {
		name := strings.Trim(args, `"`)
		if err := t.client.AnswerFriend(ctx, name, yes); err != nil {
			return err
		}
		if err := t.loadFriends(ctx); err != nil {
			return err
		}
		if !yes {
			t.say("turned down %s", visible(name))
			return nil
		}
		t.say("you and %s are friends", visible(name))
		if f, ok := t.friend(name); ok && t.current == "" {
			return t.choose(ctx, f)
		}
		return nil
	}
}

func (t *terminal) remove(ctx context.Context, args string) error {
	name := strings.Trim(args, `"`)
	if err := t.client.RemoveFriend(ctx, name); err != nil {
		return err
	}
	t.say("you and %s are no longer friends", visible(name))
	return t.loadFriends(ctx)
}

func (t *terminal) loadFriends(ctx context.Context) error {
	friends, err := t.client.Friends(ctx)
	if err != nil {
		return err
	}
	clear(t.friends)
	for _, f := range friends {
		t.friends[f.Conversation] = f
	}
	return nil
}

func (t *terminal) friend(name string) (future.Friend, bool) {
	for _, f := range t.friends {
		if f.User.Name == name {
			return f, true
		}
	}
	return future.Friend{}, false
}

// sorted is the friends by name.
func (t *terminal) sorted() []future.Friend {
	out := make([]future.Friend, 0, len(t.friends))
	for _, f := range t.friends {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b future.Friend) int {
		if c := strings.Compare(a.User.Name, b.User.Name); c != 0 {
			return c
		}
		return strings.Compare(a.User.ID, b.User.ID)
	})
	return out
}

func (t *terminal) listFriends(ctx context.Context, _ string) error {
	if err := t.loadFriends(ctx); err != nil {
		return err
	}
	if len(t.friends) == 0 {
		t.say("no friends yet: /add NAME GREETING asks somebody")
	}
	for _, f := range t.sorted() {
		name := visible(f.User.Name)
		switch f.State {
		case future.IsFriend:
			t.print(fmt.Sprintf("  %-20s %s\n", name, online(f.Online)))
		case future.AskedByThem:
			t.print(fmt.Sprintf("  %-20s asks to be friends since %s: %s\n", name, f.Time.Format("2 Jan 15:04"), quote(f.Greeting)))
			t.print(fmt.Sprintf("  %-20s /accept %s or /reject %s\n", "", name, name))
		case future.AskedByMe:
			t.print(fmt.Sprintf("  %-20s has not answered yet\n", name))
		}
	}
	return nil
}

func quote(greeting string) string {
	if greeting == "" {
		return "(no greeting)"
	}
	return "“" + strings.ReplaceAll(visibleLines(greeting), "\n      | ", " ") + "”"
}

func (t *terminal) to(ctx context.Context, args string) error {
	name := strings.Trim(args, `"`)
	f, ok := t.friend(name)
	if !ok {
		if err := t.loadFriends(ctx); err != nil {
			return err
		}
		f, ok = t.friend(name)
	}
	if !ok || f.State == future.AskedByMe && f.Conversation == "" {
		var names []string
		for _, f := range t.sorted() {
			names = append(names, f.User.Name)
		}
		hint := "/add asks somebody to be friends"
		if near := nearest(name, names); len(near) > 0 {
			hint = "did you mean " + visible(strings.Join(near, " or ")) + "?"
		}
		t.say("%s is no friend of yours: %s", visible(name), hint)
		return nil
	}
	return t.choose(ctx, f)
}

// choose opens a chat and shows what is unread in it.
func (t *terminal) choose(ctx context.Context, f future.Friend) error {
	t.current, t.day = f.Conversation, ""
	t.say("you write to %s, who is %s", visible(f.User.Name), online(f.Online))
	list, err := t.client.Conversations(ctx)
	if err != nil {
		return err
	}
	delete(t.unread, f.Conversation)
	i := slices.IndexFunc(list, func(c future.Conversation) bool { return c.ID == f.Conversation })
	if i < 0 || list[i].Unread == 0 {
		return nil
	}
	return t.showHistory(ctx, future.HistoryOptions{After: list[i].ReadSeq, Limit: max(list[i].Unread, 20)})
}

// showHistory shows messages, oldest first, whichever way they were asked for.
func (t *terminal) showHistory(ctx context.Context, opts future.HistoryOptions) error {
	const most = 500
	opts.Limit = min(opts.Limit, most)
	var found []future.Message
	for m, err := range t.client.History(ctx, t.current, opts) {
		if err != nil {
			return err
		}
		found = append(found, m)
	}
	slices.Reverse(found)
	for _, m := range found {
		t.show(m)
	}
	return nil
}

func (t *terminal) history(ctx context.Context, args string) error {
	if t.current == "" {
		t.say("of which chat? /to NAME chooses one")
		return nil
	}
	n := 20
	if args != "" {
		if n, _ = strconv.Atoi(args); n < 1 { // what is no number is 0
			t.say("usage: /history [N], N from 1 to 500")
			return nil
		}
	}
	t.day = ""
	return t.showHistory(ctx, future.HistoryOptions{Limit: n})
}

func (t *terminal) listUnread(ctx context.Context, _ string) error {
	list, err := t.client.Conversations(ctx)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		t.say("no chats yet")
	}
	for _, c := range list {
		t.print(fmt.Sprintf("  %-20s %d unread\n", t.nameOfChat(c), c.Unread))
	}
	return nil
}

func (t *terminal) nameOfChat(c future.Conversation) string {
	if c.Peer.Name != "" {
		return visible(c.Peer.Name)
	}
	return t.nameOf(c.ID)
}

func (t *terminal) nameOf(conversation string) string {
	if f, ok := t.friends[conversation]; ok && f.User.Name != "" {
		return visible(f.User.Name)
	}
	if strings.HasPrefix(conversation, "n:") {
		return "notices"
	}
	return visible(conversation)
}

func (t *terminal) who(context.Context, string) error {
	s := t.client.Stats()
	to := "nobody"
	if t.current != "" {
		to = t.nameOf(t.current)
	}
	t.say("you are %s, %s at %s (%s); you write to %s", visible(t.name), s.State, s.Addr, visible(s.Node), to)
	return nil
}
