package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
)

// meter hashes what is written to it, and refuses more than a limit or after a context's end.
type meter struct {
	ctx   context.Context
	hash  hash.Hash
	size  int64
	limit int64
	tell  func(n int64)
}

func newMeter(ctx context.Context, limit int64, tell func(n int64)) *meter {
	return &meter{ctx: ctx, hash: sha256.New(), limit: limit, tell: tell}
}

func (m *meter) Write(p []byte) (int, error) {
	if m.ctx.Err() != nil {
		return 0, context.Cause(m.ctx)
	}
	if m.size += int64(len(p)); m.size > m.limit {
		return 0, fmt.Errorf("%w: more than %d bytes", ErrLimit, m.limit)
	}
	m.tell(int64(len(p)))
	return m.hash.Write(p)
}

// sum returns the digest of what was written.
func (m *meter) sum() string { return "sha256:" + hex.EncodeToString(m.hash.Sum(nil)) }
