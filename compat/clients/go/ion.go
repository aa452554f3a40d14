package main

import (
	"fmt"
	"sort"
	"strings"
	"sync"
	"time"

	"gopkg.in/redis.v5"
)

const (
	lockRetry = 100 * time.Millisecond // ion's own pause between attempts to lock
	lockTime  = 3 * time.Second
	day       = 24 * time.Hour
	room      = "/ion/room/go"
)

// ionNode has ion's functions: each takes the lock of its key first, reads too.
type ionNode struct {
	client *redis.Client
}

func newIonNode(port string) ionNode {
	node := ionNode{connect(port, password)}
	equal("ion connects", node.client.Ping().Val(), "PONG")
	equal("ion asks for events", node.client.ConfigSet("notify-keyspace-events", "AKE").Val(), "OK")
	return node
}

// locked does it under the lock of the key. An error counts as "not acquired", as in ion.
func (n ionNode) locked(key string, do func()) {
	for deadline := time.Now().Add(patience); ; time.Sleep(lockRetry) {
		if acquired, err := n.client.SetNX("lock-"+key, 1, lockTime).Result(); err == nil && acquired {
			break
		}
		if time.Now().After(deadline) {
			check("the lock of "+key+" is acquired", false)
			return
		}
	}
	do()
	n.client.Del("lock-" + key)
}

func (n ionNode) join(user string) {
	key := room + "/" + user
	n.locked(key, func() {
		n.client.HSet(key, "uid", user)
		n.client.Expire(key, day)
	})
	n.locked(key, func() {
		n.client.HMSet(key, map[string]string{"mid": everyByte, "left": "0"})
		n.client.Expire(key, day)
	})
}

// users are those of the room, in order.
func (n ionNode) users() string {
	var names []string
	n.locked(room, func() {
		for _, key := range n.client.Keys("/ion/*/go/**").Val() {
			names = append(names, strings.TrimPrefix(key, room+"/"))
		}
	})
	sort.Strings(names)
	return strings.Join(names, " ")
}

// playIon has a node at each port do what ion's nodes do, and several at the near one.
func playIon(nearPort, farPort string) {
	here, there := newIonNode(nearPort), newIonNode(farPort)
	here.client.FlushDb()
	checkShapes(here)
	checkLock(nearPort)
	checkRoom(here, there, nearPort, farPort)
}

// checkShapes asks each of ion's functions once for a key that is there and for one that is not.
func checkShapes(node ionNode) {
	const key = "/ion/shape"
	node.locked(key, func() {
		equal("Set", node.client.Set(key, everyByte, 10*time.Second).Val(), "OK")
		equal("Get", node.client.Get(key).Val(), everyByte)
		equal("Set in milliseconds", node.client.Set(key, "v", 1500*time.Millisecond).Val(), "OK")
		equal("Del", node.client.Del(key).Val(), 1)
		equal("Get of a key that is not there", node.client.Get(key).Err(), redis.Nil)
		equal("HGetAll of one", node.client.HGetAll(key).Val(), map[string]string{})
		equal("HSet", node.client.HSet(key, "f", everyByte).Val(), true)
		equal("HGet", node.client.HGet(key, "f").Val(), everyByte)
		equal("HGet of a field that is not there", node.client.HGet(key, "none").Err(), redis.Nil)
		equal("HMSet", node.client.HMSet(key, map[string]string{"f": "v", "g": "w"}).Val(), "OK")
		equal("HMGet", node.client.HMGet(key, "g", "none").Val(), []interface{}{"w", nil})
		equal("HGetAll", node.client.HGetAll(key).Val(), map[string]string{"f": "v", "g": "w"})
		equal("Expire", node.client.Expire(key, day).Val(), true)
		equal("HDel", node.client.HDel(key, "f", "g", "h").Val(), 2)
	})
	equal("the lock is gone", node.client.Exists("lock-"+key).Val(), false)
}

// checkLock has four nodes read, add one and write, each under the lock, without any other protection.
func checkLock(port string) {
	const key, nodes, rounds = "/ion/count", 4, 5
	var all sync.WaitGroup
	for i := 0; i < nodes; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			node := newIonNode(port)
			defer node.client.Close()
			for round := 0; round < rounds; round++ {
				node.locked(key, func() {
					count, _ := node.client.HGet(key, "count").Int64()
					node.client.HSet(key, "count", count+1)
				})
			}
		}()
	}
	all.Wait()
	last := newIonNode(port)
	defer last.client.Close()
	equal("updates under the lock", last.client.HGet(key, "count").Val(), nodes*rounds)
}

// checkRoom has users join at both ports; watchers at both hear of each that goes, once, also after a restart.
func checkRoom(here, there ionNode, nearPort, farPort string) {
	here.join("a")
	there.join("b")
	here.join("c")
	for _, node := range []ionNode{here, there} {
		check("the room is listed", eventually(func() bool { return node.users() == "a b c" }), node.users())
		check("with what its users said", eventually(func() bool {
			said := node.client.HGetAll(room + "/b").Val()
			return len(said) == 3 && said["mid"] == everyByte && node.client.TTL(room+"/b").Val() > day-time.Minute
		}))
	}
	var watchers []*listener
	for _, user := range []string{"a", "b"} {
		for _, port := range []string{nearPort, farPort} {
			watchers = append(watchers, listen(port, nil, []string{"__key*__:" + room + "/" + user}))
		}
	}
	there.locked(room+"/a", func() { there.client.Del(room + "/a") })
	here.locked(room+"/b", func() { here.client.PExpire(room+"/b", 200*time.Millisecond) })
	for i, watcher := range watchers {
		watcher.hears(i/2 == 0, here.client, fmt.Sprint("watcher ", i))
	}
	check("who has gone is not listed", eventually(func() bool { return there.users() == "c" }), there.users())
	killAndRestart()
	check("the room is there after a kill", eventually(func() bool { return there.users() == "c" }), there.users())
	check("a node asks for events again", eventually(func() bool {
		return there.client.ConfigSet("notify-keyspace-events", "AKE").Err() == nil
	}))
	check("a watcher watches again", watchers[3].hearsAgain(here.client, eventsOf(room+"/b")))
}

// hears checks that a user who has left was told by one `del`, and one whose time was over by one `expired`: ion acts on these two.
func (l *listener) hears(left bool, publisher *redis.Client, who string) {
	event, user := "expired", room+"/b"
	if left {
		event, user = "del", room+"/a"
	}
	// What comes twice comes before a message that is sent when the first has come. Each watcher has a message of its own: a site
	// tells an expiry by its own clock, so the message that another watcher's site sent on can be here before the expiry is told.
	fence := "fence of " + who
	var heard []string
	for name := " "; name != "" && name != fence; {
		_, name = l.next()
		if name == "del" || name == "expired" {
			heard = append(heard, name)
			publisher.Publish(eventsOf(user), fence)
		}
	}
	equal(who+" hears", strings.Join(heard, " "), event)
}

// eventsOf is the channel that tells what happens to a key.
func eventsOf(key string) string {
	return fmt.Sprintf("__keyspace@%d__:%s", database, key)
}
