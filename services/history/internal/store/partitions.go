package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Partition is where one partition stands.
type Partition struct {
	Seq      int64 // everything up to it is in SQL
	Epoch    int64 // Unix ms of the creation of the stream that it was read from
	FirstSeq int64 // when not 0: SQL lacks what was before, so predecessors may be unknown
}

// Init makes the rows of the partitions and refuses a database that was made for more.
func (s *Store) Init(ctx context.Context, partitions int) error {
	for p := range partitions {
		if _, err := s.write.Write.ExecContext(ctx, `INSERT INTO history_partitions (p) VALUES ($1) ON CONFLICT (p) DO NOTHING`, p); err != nil {
			return fmt.Errorf("make the partitions: %w", err)
		}
	}
	var n int
	if err := s.write.Write.QueryRowContext(ctx, `SELECT count(*) FROM history_partitions`).Scan(&n); err != nil {
		return fmt.Errorf("count the partitions: %w", err)
	}
	if n != partitions {
		return fmt.Errorf("%w: %d, partitions is set to %d", ErrPartitions, n, partitions)
	}
	return nil
}

// Positions is SQL's position per partition.
func (s *Store) Positions(ctx context.Context) ([]int64, error) { return positions(ctx, s.db) }

func positions(ctx context.Context, q querier) (out []int64, err error) {
	err = each(ctx, q, "positions", `SELECT seq FROM history_partitions ORDER BY p`, nil, func(r *sql.Rows) error {
		var v int64
		err := r.Scan(&v)
		out = append(out, v)
		return err
	})
	return out, err
}

// Acquire takes or renews the lease of a partition. ErrLost: another replica has it.
func (s *Store) Acquire(ctx context.Context, p int, owner string, lease time.Duration) (st Partition, err error) {
	now := s.now()
	err = s.write.Write.QueryRowContext(ctx, `UPDATE history_partitions SET owner = $2, lease_until = `+now+` + $3
		WHERE p = $1 AND (owner = $2 OR owner = '' OR lease_until < `+now+`) RETURNING seq, epoch, first_seq`,
		p, owner, lease.Milliseconds()).Scan(&st.Seq, &st.Epoch, &st.FirstSeq)
	if errors.Is(err, sql.ErrNoRows) {
		return st, ErrLost
	}
	if err != nil {
		return st, fmt.Errorf("take partition %d: %w", p, err)
	}
	return st, nil
}

// Release gives a partition back, if owner has it.
func (s *Store) Release(ctx context.Context, p int, owner string) error {
	if _, err := s.write.Write.ExecContext(ctx, `UPDATE history_partitions SET owner = '', lease_until = 0 WHERE p = $1 AND owner = $2`, p, owner); err != nil {
		return fmt.Errorf("give back partition %d: %w", p, err)
	}
	return nil
}

// Begin notes which stream an owned partition is read from, and where the first reading of all begins.
func (s *Store) Begin(ctx context.Context, p int, owner string, old, st Partition) error {
	res, err := s.write.Write.ExecContext(ctx, `UPDATE history_partitions SET seq = $4, epoch = $5, first_seq = $6 WHERE p = $1 AND owner = $2 AND seq = $3`,
		p, owner, old.Seq, st.Seq, st.Epoch, st.FirstSeq)
	if err != nil {
		return fmt.Errorf("begin partition %d: %w", p, err)
	}
	if n, err := res.RowsAffected(); err == nil && n == 0 {
		return ErrLost
	}
	return nil
}

// SentAt is when the message was stored that SQL has at a seq, Unix ms; 0 if it has none there.
func (s *Store) SentAt(ctx context.Context, p int, seq int64) (at int64, err error) {
	err = s.write.Write.QueryRowContext(ctx, `SELECT sent_at FROM history_messages WHERE pos = $1`, pos(p, seq)).Scan(&at)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("read a message's time: %w", err)
	}
	return at, nil
}
