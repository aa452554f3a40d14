package main

import (
	"fmt"
	"strings"
	"time"

	"gopkg.in/redis.v5"
)

// askClient asks of go-redis what all clients are asked. It has no calls for shard channels.
func askClient(nearPort, farPort string) {
	near, far := connect(nearPort, password), connect(farPort, password)
	checkConnecting(near, nearPort)
	checkPipelines(near)
	checkTransactions(near, nearPort)
	checkHashes(near, far)
	checkEvents(near, far, farPort)
	news := listen(farPort, []string{"news", "\x00\xff"}, []string{"pat:*"})
	checkMessages(near, news)
	checkLarge(near, far, news)
	checkRestart(near, far, news)
}

func checkConnecting(near *redis.Client, port string) {
	equal("PING", near.Ping().Val(), "PONG")
	// This go-redis has no option for a name: the application tells it.
	near.Pipelined(func(pipe *redis.Pipeline) error {
		return pipe.ClientSetName("writer").Err()
	})
	name, _ := do(near, "CLIENT", "GETNAME").(string)
	equal("the name", name, "writer")
	info, _ := do(near, "CLIENT", "INFO").(string)
	check("the database", strings.Contains(info, fmt.Sprintf(" db=%d ", database)), info)
	err := connect(port, "wrong").Ping().Err()
	check("a wrong password is refused", err != nil && strings.HasPrefix(err.Error(), "WRONGPASS"), err)
	check("FLUSHDB", near.FlushDb().Err() == nil)
}

// do sends any command; nil if it was answered by an error.
func do(client *redis.Client, words ...interface{}) interface{} {
	command := redis.NewCmd(words...)
	client.Process(command)
	return command.Val()
}

func checkPipelines(near *redis.Client) {
	const many = 500
	answers := make([]*redis.StringCmd, many)
	_, err := near.Pipelined(func(pipe *redis.Pipeline) error {
		for i := range answers {
			pipe.Set(fmt.Sprint("p:", i), i, 0)
			answers[i] = pipe.Get(fmt.Sprint("p:", i))
		}
		return nil
	})
	inOrder := err == nil
	for i, answer := range answers {
		inOrder = inOrder && answer.Val() == fmt.Sprint(i)
	}
	check("a pipeline of 1,000 is answered in order", inOrder, err)
	found := 0
	for keys := near.Scan(0, "p:*", 100).Iterator(); keys.Next(); {
		found++
	}
	equal("SCAN", found, many)
}

func checkTransactions(near *redis.Client, port string) {
	other := connect(port, password)
	defer other.Close()
	near.Set("stock", 3, 0)
	var left *redis.IntCmd
	_, err := near.TxPipelined(func(pipe *redis.Pipeline) error {
		left = pipe.Decr("stock")
		return nil
	})
	equal("EXEC", fmt.Sprint(left.Val(), err), "2 <nil>")
	take := func(meanwhile func()) error {
		return near.Watch(func(tx *redis.Tx) error {
			meanwhile()
			_, err := tx.Pipelined(func(pipe *redis.Pipeline) error {
				return pipe.Decr("stock").Err()
			})
			return err
		}, "stock")
	}
	equal("EXEC after a change of a watched key", take(func() { other.Set("stock", 9, 0) }), redis.TxFailedErr)
	equal("EXEC after none", take(func() {}), nil)
	equal("what is left", near.Get("stock").Val(), "8")
}

func checkHashes(near, far *redis.Client) {
	near.HMSet("room", map[string]string{"name": "Room one", "seats": "12", "empty": ""})
	near.HIncrBy("room", "seats", 30)
	whole := map[string]string{"name": "Room one", "seats": "42", "empty": ""}
	check("a hash", eventually(func() bool {
		return fmt.Sprint(far.HGetAll("room").Val()) == fmt.Sprint(whole)
	}), far.HGetAll("room"))
	equal("a hash that is not there", far.HGetAll("no-room").Val(), map[string]string{})
	equal("a field that is not there", near.HGet("room", "none").Err(), redis.Nil)
}

func checkEvents(near, far *redis.Client, farPort string) {
	for _, client := range []*redis.Client{near, far} {
		equal("CONFIG SET", client.ConfigSet("notify-keyspace-events", "AKE").Val(), "OK")
	}
	channel := fmt.Sprintf("__keyspace@%d__:lock", database)
	events := listen(farPort, nil, []string{channel})
	check("SET NX", near.SetNX("lock", 1, 100*time.Second).Val())
	for _, event := range []string{"set", "expire"} {
		from, name := events.next()
		equal("the event "+event, from+" "+name, channel+" "+event)
	}
	// Only now is its end made near: a site which a change of the key reaches after its time tells that it has expired and nothing else.
	near.PExpire("lock", 300*time.Millisecond)
	from, name := events.next()
	if name == "expire" {
		from, name = events.next()
	}
	equal("the event expired", from+" "+name, channel+" expired")
	equal("an expired key", far.Get("lock").Err(), redis.Nil)
	near.Set("long", 1, 100*time.Second)
	check("the time to live", eventually(func() bool {
		left := far.TTL("long").Val()
		return left > 90*time.Second && left <= 100*time.Second
	}))
}

func checkMessages(near *redis.Client, news *listener) {
	for _, channel := range []string{"news", "pat:one", "\x00\xff"} {
		near.Publish(channel, "to "+channel)
		from, payload := news.next()
		equal(fmt.Sprintf("a message on %q", channel), from+" "+payload, channel+" to "+channel)
	}
	const many = 100
	near.Pipelined(func(pipe *redis.Pipeline) error {
		for i := 0; i < many; i++ {
			pipe.Publish("news", fmt.Sprint(i))
		}
		return nil
	})
	inOrder := true
	for i := 0; i < many; i++ {
		_, payload := news.next()
		inOrder = inOrder && payload == fmt.Sprint(i)
	}
	check("100 messages in order, each once", inOrder)
	check("PUBSUB NUMSUB", eventually(func() bool { return near.PubSubNumSub("news").Val()["news"] == 1 }))
}

func checkLarge(near, far *redis.Client, news *listener) {
	for what, value := range map[string]string{"every byte": everyByte, "a megabyte": megabyte} {
		for _, channel := range []string{"news", "pat:one"} {
			near.Publish(channel, value)
			_, payload := news.next()
			equal(fmt.Sprintf("a message of %s on %s", what, channel), payload, value)
		}
		near.Set("bytes", value, 0)
		check("a value of "+what, eventually(func() bool { return far.Get("bytes").Val() == value }))
	}
}

// The subscriber connects again and subscribes again by itself; nobody here helps it.
func checkRestart(near, far *redis.Client, news *listener) {
	near.Set("kept", "over the restart", 0)
	eventually(func() bool { return far.Get("kept").Val() == "over the restart" })
	killAndRestart()
	check("what was acknowledged is there after a kill", eventually(func() bool {
		return far.Get("kept").Val() == "over the restart"
	}))
	for _, channel := range []string{"news", "pat:one"} {
		check("a message on "+channel+" after the restart", news.hearsAgain(near, channel))
	}
	check("the near site goes on", eventually(func() bool { return near.Ping().Val() == "PONG" }))
}

// hearsAgain publishes until the listener has one of the messages.
func (l *listener) hearsAgain(publisher *redis.Client, channel string) bool {
	return eventually(func() bool {
		publisher.Publish(channel, "again "+channel)
		select {
		case message := <-l.messages:
			return message.Payload == "again "+channel
		case <-time.After(50 * time.Millisecond):
			return false
		}
	})
}
