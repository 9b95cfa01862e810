package clustertest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/eventlog/kafkalog"
)

// Filling is what FillLog appends.
type Filling struct {
	// Messages to append, spread evenly over Conversations of pairs of users that have no account.
	Messages, Conversations int
	// Text of each.
	Text string
	// From is the number of the first message; a later filling goes on where the one before ended.
	From int
}

// FillLog appends messages to the log as a node does, without one: for what is measured of the log's readers alone. It returns
// when all are acknowledged.
func (c *Cluster) FillLog(ctx context.Context, f Filling) (err error) {
	log, err := kafkalog.New(kafkalog.Options{Brokers: strings.Split(c.Kafka, ","), ClientID: "future-fill"})
	if err != nil {
		return err
	}
	defer func() { // calls back for all that is left
		const patience = 5 * time.Second
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		err = errors.Join(err, log.Close(closing))
	}()
	own := eventlog.Prefixed(log, c.Namespace)

	const inFlight = 8192 // well below the log's own bounds
	places := make(chan struct{}, inFlight)
	failed := make(chan error, 1)
	var pending sync.WaitGroup
	for i := range f.Messages {
		select {
		case places <- struct{}{}:
		case err := <-failed:
			return fmt.Errorf("fill log: %w", err)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		e, err := f.entry(f.From+i, c.opts.Partitions)
		if err != nil {
			return err
		}
		pending.Add(1)
		if err := own.Append(e, func(_ eventlog.Appended, err error) {
			if err != nil {
				select {
				case failed <- err:
				default: // one tells enough
				}
			}
			<-places
			pending.Done()
		}); err != nil {
			pending.Done()
			return fmt.Errorf("fill log: %w", err)
		}
	}
	pending.Wait()
	select {
	case err := <-failed:
		return fmt.Errorf("fill log: %w", err)
	default:
		return nil
	}
}

// entry is the message numbered i. Its conversation is one in turn, so that a batch of history holds many, as in life.
func (f Filling) entry(i, partitions int) (eventlog.Entry, error) {
	const base = 1_000_000_000 // above the ids of real accounts
	pair := int64(base + 2*(i%f.Conversations))
	sender := pair + int64(i/f.Conversations%2)
	return chat.Record{Kind: chat.KindMessage, Message: &pb.Message{
		Conversation: wire.Direct(pair, pair+1), ClientMsgId: wire.NewMessageID(),
		Sender:  &pb.User{Id: wire.FormatID(sender), Name: "somebody"},
		Payload: &pb.Payload{Kind: &pb.Payload_Text{Text: &pb.Text{Text: f.Text}}},
	}}.Entry(partitions)
}

// OpenDatabase opens the cluster's database, for a view of it that is not the product's.
func (c *Cluster) OpenDatabase() (*sql.DB, error) {
	if file, ok := strings.CutPrefix(c.Database, "sqlite:"); ok {
		return sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(10000)")
	}
	return sql.Open("mysql", c.Database)
}
