// go-redis as Debian packages it, which speaks RESP2: the same as the other clients are asked in ../scenario.mjs, and the calls that
// ion, whose client is a later go-redis, makes of it.
//
//	go_redis client|ion NEAR-PORT FAR-PORT PROTOCOL
//
// See ../harness.mjs for what near and far are.
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"sync"
	"time"

	"gopkg.in/redis.v5"
)

const (
	database = 5
	patience = 20 * time.Second // the longest that anything may take
)

var (
	counting       sync.Mutex
	passed, failed int
	password       = os.Getenv("COMPAT_PASSWORD")
	everyByte      = func() string {
		all := make([]byte, 256)
		for i := range all {
			all[i] = byte(i)
		}
		return string(all)
	}()
	megabyte = string(bytes.Repeat([]byte(everyByte), 4096))
)

func check(what string, good bool, detail ...interface{}) {
	counting.Lock()
	defer counting.Unlock()
	if good {
		passed++
		return
	}
	failed++
	text := fmt.Sprint(detail...)
	if len(text) > 300 {
		text = text[:300] + "..."
	}
	fmt.Printf("FAIL %s: %s\n", what, text)
}

func equal(what string, actual, expected interface{}) {
	a, e := fmt.Sprint(actual), fmt.Sprint(expected)
	if len(e) > 100 {
		check(what, a == e, len(a), " bytes that are not the ", len(e), " expected")
		return
	}
	check(what, a == e, a, " instead of ", e)
}

// eventually asks until the answer is true, for a while. For what has no event to await.
func eventually(ask func() bool) bool {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if ask() {
			return true
		}
	}
	return false
}

// connect gives a client of one connection, so that its name and what it watches stay with it.
func connect(port, secret string) *redis.Client {
	return redis.NewClient(&redis.Options{Addr: "127.0.0.1:" + port, Password: secret, DB: database, PoolSize: 1,
		ReadTimeout: patience, MaxRetries: 2})
}

// killAndRestart has the driver kill the far server, which cannot say goodbye, and start it again on its port and its data.
func killAndRestart() {
	fmt.Println("!restart")
	bufio.NewReader(os.Stdin).ReadString('\n')
}

// listener receives all that comes to one subscriber, in a goroutine of its own that finds its way back after a lost connection.
type listener struct {
	pubsub   *redis.PubSub
	messages chan *redis.Message
}

// listen subscribes, and comes back when all subscriptions are acknowledged.
func listen(port string, channels, patterns []string) *listener {
	pubsub, err := connect(port, password).Subscribe(channels...)
	if err == nil && len(patterns) > 0 {
		err = pubsub.PSubscribe(patterns...)
	}
	for i := 0; err == nil && i < len(channels)+len(patterns); i++ {
		var notice interface{}
		notice, err = pubsub.ReceiveTimeout(patience)
		if subscription, is := notice.(*redis.Subscription); err == nil && (!is || subscription.Count != i+1) {
			err = fmt.Errorf("%v instead of subscription %d", notice, i+1)
		}
	}
	check("subscriptions are acknowledged", err == nil, err)
	l := &listener{pubsub, make(chan *redis.Message, 10000)}
	go func() {
		for {
			if message, err := pubsub.ReceiveMessage(); err == nil {
				l.messages <- message
			}
		}
	}()
	return l
}

// next gives the next message as its channel and payload; two empty texts at the deadline.
func (l *listener) next() (string, string) {
	select {
	case message := <-l.messages:
		return message.Channel, message.Payload
	case <-time.After(patience):
		return "", ""
	}
}

func main() {
	if len(os.Args) < 4 {
		fmt.Println("go_redis client|ion NEAR-PORT FAR-PORT PROTOCOL")
		os.Exit(2)
	}
	if near, far := os.Args[2], os.Args[3]; os.Args[1] == "ion" {
		playIon(near, far)
	} else {
		askClient(near, far)
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		os.Exit(1)
	}
}
