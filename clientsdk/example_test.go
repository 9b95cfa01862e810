package future_test

import (
	"context"
	"fmt"
	"log"

	future "github.com/futurechat/future/clientsdk"
)

// A few lines that log in, write to a friend and print what comes.
func Example() {
	ctx := context.Background()
	c, err := future.Dial(ctx, []string{"127.0.0.1:7700"}, future.WithDir("alice"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if _, resumed := c.Session(); !resumed {
		if _, err := c.Login(ctx, "alice", "correct horse"); err != nil {
			log.Fatal(err)
		}
	}
	friends, err := c.Friends(ctx)
	if err != nil || len(friends) == 0 {
		log.Fatal("nobody to write to: ", err)
	}
	receipt, err := c.Send(ctx, friends[0].Conversation, "hello")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("safe since", receipt.Time)
	for ev := range c.Events() {
		if m, ok := ev.(future.Message); ok {
			fmt.Printf("%s: %s\n", m.Sender.Name, m.Text)
		}
	}
}
