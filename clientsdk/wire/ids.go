package wire

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
)

// Limits of fields, in the unit that each name says. PROTOCOL.md repeats them.
const (
	MaxTextBytes     = 16 << 10
	MaxGreetingRunes = 200
	MinNameRunes     = 2
	MaxNameRunes     = 32
	MinPasswordBytes = 8
	MaxPasswordBytes = 256
	MaxEmailBytes    = 254
	MaxDeviceRunes   = 64
	MaxClientBytes   = 64
	MaxHistoryLimit  = 200
	DefaultHistory   = 50
	maxIDDigits      = 19
)

// ParseID reads a canonical decimal id: no sign, no leading zero, 1 to 2^63-1.
func ParseID(s string) (int64, error) {
	id, err := strconv.ParseInt(s, 10, 64)
	if err != nil || id <= 0 || len(s) > maxIDDigits || s[0] == '0' || s[0] == '+' {
		return 0, fmt.Errorf("%q is no id: a decimal number from 1 without leading zeros is wanted", cut(s))
	}
	return id, nil
}

// FormatID is the inverse of ParseID.
func FormatID(id int64) string { return strconv.FormatInt(id, 10) }

// Direct is the conversation of two friends, `d:<lo>:<hi>`, whichever is named first.
func Direct(a, b int64) string {
	return "d:" + FormatID(min(a, b)) + ":" + FormatID(max(a, b))
}

// Group is a group's conversation, `g:<group>`.
func Group(group int64) string { return "g:" + FormatID(group) }

// Notices is a user's notices, `n:<user>`; clients never send there.
func Notices(user int64) string { return "n:" + FormatID(user) }

// Conversation is a parsed conversation name.
type Conversation struct {
	// Kind is 'd', 'g' or 'n'.
	Kind byte
	// A is the lower user of a direct conversation, the group, or the user.
	A int64
	// B is the higher user of a direct conversation, else 0.
	B int64
}

// ParseConversation reads a conversation's canonical name.
func ParseConversation(s string) (Conversation, error) {
	kind, rest, _ := strings.Cut(s, ":")
	first, second, two := strings.Cut(rest, ":")
	a, err := ParseID(first)
	if err == nil && kind == "d" && two {
		if b, err := ParseID(second); err == nil && a < b {
			return Conversation{Kind: 'd', A: a, B: b}, nil
		}
	}
	if err == nil && (kind == "g" || kind == "n") && !two {
		return Conversation{Kind: kind[0], A: a}, nil
	}
	return Conversation{}, fmt.Errorf("%q is no conversation: d:<lower user>:<higher user>, g:<group> or n:<user> is wanted", cut(s))
}

// Has tells whether user is one of the two of a direct conversation, or the owner of notices.
func (c Conversation) Has(user int64) bool {
	return user != 0 && (c.Kind == 'd' && (c.A == user || c.B == user) || c.Kind == 'n' && c.A == user)
}

// Other returns the one of a direct conversation that is not user.
func (c Conversation) Other(user int64) int64 { return c.A ^ c.B ^ user }

// NewMessageID makes a client_msg_id: a UUID, version 7.
func NewMessageID() string { return uuid.Must(uuid.NewV7()).String() }

// CheckMessageID says what is wrong with a client_msg_id: only a version 7 UUID in its canonical, lower-case form will
// do, so that one identity has one spelling.
func CheckMessageID(s string) error {
	if id, err := uuid.Parse(s); err != nil || id.Version() != 7 || id.String() != s {
		return fmt.Errorf("%q is no client_msg_id: a version 7 UUID in lower case is wanted", cut(s))
	}
	return nil
}

// CheckDeviceID says what is wrong with a device's id: any UUID in its canonical, lower-case form will do.
func CheckDeviceID(s string) error {
	if id, err := uuid.Parse(s); err != nil || id == uuid.Nil || id.String() != s {
		return fmt.Errorf("%q is no device id: a UUID in lower case is wanted", cut(s))
	}
	return nil
}

// CheckText says what is wrong with the text of a message.
func CheckText(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("is empty: 1 to %d bytes are wanted", MaxTextBytes)
	case len(s) > MaxTextBytes:
		return fmt.Errorf("has %d bytes: at most %d are allowed", len(s), MaxTextBytes)
	}
	return checkString(s)
}

// CheckGreeting says what is wrong with a greeting.
func CheckGreeting(s string) error {
	if n := utf8.RuneCountInString(s); n > MaxGreetingRunes {
		return fmt.Errorf("has %d characters: at most %d are allowed", n, MaxGreetingRunes)
	}
	return checkString(s)
}

// CheckName says what is wrong with an account's name. Names are compared byte by byte: `07` and `7` are two accounts.
// White space at the ends is refused because databases differ on whether it counts.
func CheckName(s string) error {
	if err := checkString(s); err != nil {
		return err
	}
	if n := utf8.RuneCountInString(s); n < MinNameRunes || n > MaxNameRunes {
		return fmt.Errorf("has %d characters: %d to %d are wanted", n, MinNameRunes, MaxNameRunes)
	}
	if strings.TrimSpace(s) != s {
		return fmt.Errorf("begins or ends with white space")
	}
	for _, r := range s {
		if !unicode.IsGraphic(r) {
			return fmt.Errorf("has the character %U, which cannot be seen", r)
		}
	}
	return nil
}

// CheckPassword says what is wrong with a password.
func CheckPassword(s string) error {
	if len(s) < MinPasswordBytes || len(s) > MaxPasswordBytes {
		return fmt.Errorf("has %d bytes: %d to %d are wanted", len(s), MinPasswordBytes, MaxPasswordBytes)
	}
	return checkString(s)
}

// CheckEmail says what is wrong with an e-mail address; the empty one is allowed. Only a mail that arrives proves one.
func CheckEmail(s string) error {
	if s == "" {
		return nil
	}
	local, domain, ok := strings.Cut(s, "@")
	if !ok || local == "" || domain == "" || strings.ContainsAny(s, " \t\r\n<>,;") || strings.Contains(domain, "@") {
		return fmt.Errorf("is no e-mail address: name@host is wanted")
	}
	if len(s) > MaxEmailBytes {
		return fmt.Errorf("has %d bytes: at most %d are allowed", len(s), MaxEmailBytes)
	}
	return checkString(s)
}

func checkString(s string) error {
	if !utf8.ValidString(s) {
		return fmt.Errorf("is not UTF-8")
	}
	if strings.IndexByte(s, 0) >= 0 {
		return fmt.Errorf("has a NUL character")
	}
	return nil
}

// cut keeps what a stranger sent short where it is repeated in an error.
func cut(s string) string {
	const most = 80
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
