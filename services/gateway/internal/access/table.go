package access

import "maps"

// table mirrors the keys of one kind in a bucket. It is no larger than the bucket, where entries run out
// together with the tokens that they are about.
type table[V any] struct {
	rows     map[string]row[V]
	reading  uint64 // grows with each complete read of the bucket
	complete bool   // there was one
}

type row[V any] struct {
	value V
	heard uint64 // the reading in which the bucket last told of it
}

func newTable[V any]() table[V] { return table[V]{rows: map[string]row[V]{}} }

// put gives what was there before.
func (t *table[V]) put(key string, value V) (old V, had bool) {
	before, had := t.rows[key]
	t.rows[key] = row[V]{value, t.reading}
	return before.value, had
}

func (t *table[V]) drop(key string) { delete(t.rows, key) }

// sweep ends a complete read: what the bucket did not tell of since the one before is no longer there.
func (t *table[V]) sweep() {
	maps.DeleteFunc(t.rows, func(_ string, r row[V]) bool { return r.heard < t.reading })
	t.reading++
	t.complete = true
}
