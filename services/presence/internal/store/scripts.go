package store

import (
	_ "embed" // the scripts

	"github.com/redis/go-redis/v9"
)

//go:embed lua/shard.lua
var shardLua string

//go:embed lua/apply.lua
var applyLua string

//go:embed lua/beat.lua
var beatLua string

//go:embed lua/resync.lua
var resyncLua string

//go:embed lua/reap.lua
var reapLua string

//go:embed lua/tick.lua
var tickLua string

//go:embed lua/snapshot.lua
var snapshotLua string

//go:embed lua/seen.lua
var seenLua string

//go:embed lua/expect.lua
var expectLua string

// script is one operation on one shard: the common beginning and its own part.
type script struct {
	name string
	src  string
	hash string
}

func newScript(name, part string) *script {
	src := shardLua + part
	return &script{name, src, redis.NewScript(src).Hash()}
}

type scripts struct {
	apply, beat, resync, reap, tick, snapshot, seen, expect *script
}

func newScripts() scripts {
	return scripts{
		newScript("apply", applyLua), newScript("beat", beatLua), newScript("resync", resyncLua), newScript("reap", reapLua),
		newScript("tick", tickLua), newScript("snapshot", snapshotLua), newScript("seen", seenLua), newScript("expect", expectLua),
	}
}
