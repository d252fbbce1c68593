package client_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"parley.example/client"
	"parley.example/client/wire"
)

// The examples run against a real `parley serve`: demoURL is its address, demoLogin a login of one of its demo users.

// Two people, each with a connection of their own.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	api, err := client.New(demoURL(), nil)
	if err != nil {
		panic(err)
	}
	connect := func(user, password string) *client.Conn {
		me, err := api.Login(ctx, user, password)
		if err != nil {
			panic(err)
		}
		conn, err := client.Dial(ctx, client.Options{Session: me})
		if err != nil {
			panic(err)
		}
		return conn
	}
	lisa, avi := connect("lisa", "TestMe"), connect("avi", "MoreMoreMore")
	defer lisa.Close()
	defer avi.Close()

	// Send returns when the message is stored.
	accepted, err := lisa.Send(ctx, client.Room("Lisa", "Avi"), "how are you?")
	if err != nil {
		panic(err)
	}
	// What Avi missed before comes as well.
	for ev := range avi.Events() {
		if m, ok := ev.(client.Message); ok && m.Seq == accepted.Seq {
			fmt.Println(m.Sender, "says", m.Content)
			break
		}
	}
	// Output: Lisa says how are you?
}

// Every event is a type of its own; those that a program does not care for it passes over. What came while nobody was connected comes
// first, then CaughtUp, whose token lets another process go on from there.
func ExampleConn_Events() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	era := demoLogin(ctx, "Era", "Come on")
	conn, err := client.Dial(ctx, client.Options{Session: era})
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	online := map[string]bool{}
	for ev := range conn.Events() {
		switch ev := ev.(type) {
		case client.Message:
			fmt.Println(ev.SentAt, ev.Sender, ev.Content)
		case client.Presence:
			if ev.Snapshot { // the whole picture: the first one, and whenever the server could not tell for a while
				clear(online) // if ev.Partial, who is named nowhere is not known
			}
			for _, name := range ev.Online {
				online[name] = true
			}
			for _, gone := range ev.Offline {
				delete(online, gone.Username)
			}
		case client.Disconnected:
			fmt.Println("gone, again in", ev.Wait)
		case client.CaughtUp:
			fmt.Println("up to date, with a token to go on from:", ev.Resume != "")
			return
		}
	}
	fmt.Println("the end:", conn.Err())
	// Output:
	// up to date, with a token to go on from: true
}

// A message has an id. One whose outcome is not known is sent again with the same id, by another process too, and is stored once.
func ExampleConn_SendMessage() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := client.Dial(ctx, client.Options{Session: demoLogin(ctx, "Era", "Come on")})
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	m := client.Outgoing{Room: client.Room("Era", "Tsahi"), Content: "order 4711", ID: "order-4711"}
	first, err := conn.SendMessage(ctx, m)
	var unknown *client.OutcomeUnknownError
	if err != nil && !errors.As(err, &unknown) {
		panic(err) // refused: it is not stored
	}
	m.Retry = true // it was sent before
	second, err := conn.SendMessage(ctx, m)
	if err != nil {
		panic(err)
	}
	fmt.Println("stored once:", first.Seq == second.Seq)
	// Output: stored once: true
}

// A conversation is read as far as the loop goes, page by page.
func ExampleSession_History() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tsahi := demoLogin(ctx, "Tsahi", "Virtual Environment")
	conn, err := client.Dial(ctx, client.Options{Session: tsahi})
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	room := client.Room("Tsahi", "Admin")
	var last client.Accepted
	for _, text := range []string{"one", "two", "three"} {
		if last, err = conn.Send(ctx, room, text); err != nil {
			panic(err)
		}
	}
	waitStored(ctx, tsahi, room, last.Seq)

	for m, err := range tsahi.History(ctx, room, 0) {
		if err != nil {
			panic(err)
		}
		fmt.Println(m.Content)
	}
	fmt.Println("and from the first on:")
	for m, err := range tsahi.HistoryAfter(ctx, room, 0) {
		if err != nil {
			panic(err)
		}
		fmt.Println(m.Content)
		if m.Content == "two" {
			break
		}
	}
	// Output:
	// three
	// two
	// one
	// and from the first on:
	// one
	// two
}

// waitStored waits until history has the message: it is a moment behind the stream, which has it as soon as it is accepted.
func waitStored(ctx context.Context, me *client.Session, room string, seq int64) {
	for {
		for m, err := range me.History(ctx, room, 0) {
			if err != nil {
				panic(err)
			}
			if m.Seq == seq {
				return
			}
			break
		}
		time.Sleep(5 * time.Millisecond) // polling interval
	}
}

// Errors of the server have a code.
func ExampleClient_Login() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	api, err := client.New(demoURL(), nil)
	if err != nil {
		panic(err)
	}
	_, err = api.Login(ctx, "lisa", "not her password")
	var we *wire.Error
	if errors.As(err, &we) {
		fmt.Println(we.Code)
	}
	// Output: unauthenticated
}
