package quota_test

import (
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/quota"
)

func TestBucket(t *testing.T) {
	bucket, now := quota.New(10, 3), time.Now()
	for i, test := range []struct {
		after time.Duration
		want  bool
	}{
		{0, true}, {0, true}, {0, true}, {0, false}, // the burst
		{50 * time.Millisecond, false}, {50 * time.Millisecond, true}, {0, false}, // the rate
		{time.Hour, true}, {0, true}, {0, true}, {0, false}, // no more than the burst
		{-time.Hour, false},
	} {
		if now = now.Add(test.after); bucket.Take(now) != test.want {
			t.Errorf("step %d: %t", i, !test.want)
		}
	}
}
