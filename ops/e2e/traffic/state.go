package traffic

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"

	future "github.com/futurechat/future/clientsdk"
	"github.com/futurechat/future/ops/clustertest"
)

// rows are what people would miss, by plain SQL.
var rows = map[string]string{
	"sessions":        "SELECT id, account_id, device_id FROM sessions ORDER BY id",
	"friends, asked":  "SELECT lo, hi, state, asked_by, greeting, version FROM pairs ORDER BY lo, hi",
	"messages":        "SELECT conversation, seq, n, own, sender_id FROM messages ORDER BY conversation, seq",
	"heads of unread": "SELECT conversation, seq, n, own_a, own_b FROM conversations ORDER BY conversation",
	"read up to":      "SELECT user_id, conversation, read_seq, read_n, read_own FROM cursors ORDER BY user_id, conversation",
	"undelivered":     "SELECT id, conversation FROM outbox ORDER BY id",
}

// State is what the database has, as the number of rows and a hash for each table, and what clients are told of their friends,
// requests and unread messages: a line each. Who is online is left out. Two States of a cluster in which nothing was said
// meanwhile must be equal.
func State(ctx context.Context, c *clustertest.Cluster, clients map[string]*future.Client) (map[string]string, error) {
	db, err := c.OpenDatabase()
	if err != nil {
		return nil, err
	}
	defer func() { _ = db.Close() }()
	state := map[string]string{}
	for name, query := range rows {
		found, err := db.QueryContext(ctx, query)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		columns, err := found.Columns()
		if err != nil {
			return nil, err
		}
		values, at := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			at[i] = &values[i]
		}
		n, hash := 0, sha256.New()
		for ; found.Next(); n++ {
			if err := found.Scan(at...); err != nil {
				return nil, err
			}
			for _, v := range values {
				if b, ok := v.([]byte); ok {
					v = string(b)
				}
				fmt.Fprintf(hash, "%v\x00", v)
			}
		}
		if err := found.Err(); err != nil {
			return nil, err
		}
		if err := found.Close(); err != nil {
			return nil, err
		}
		state["SQL: "+name] = fmt.Sprintf("%d rows, %x", n, hash.Sum(nil)[:8])
	}
	for name, client := range clients {
		friends, err := client.Friends(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s's friends: %w", name, err)
		}
		var b strings.Builder
		for _, f := range friends {
			fmt.Fprintf(&b, "%s:%d:%q ", f.User.Name, f.State, f.Greeting)
		}
		conversations, err := client.Conversations(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s's conversations: %w", name, err)
		}
		for _, v := range conversations {
			fmt.Fprintf(&b, "%s: %d unread, read to %d, last %d; ", v.ID, v.Unread, v.ReadSeq, v.Last.Seq)
		}
		state["SDK: "+name] = b.String()
	}
	return state, nil
}
