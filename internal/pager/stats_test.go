//go:build linux

package pager

import (
	"encoding/json"
	"math"
	"reflect"
	"testing"
	"time"
)

func TestBucketsHoldWhatIsInThem(t *testing.T) {
	before := -1
	for d := time.Duration(0); d < 1000*time.Second; d += max(1, d/100) {
		bucket := bucketOf(d)
		if bucket < before || bucket >= buckets {
			t.Fatalf("%d is in bucket %d, after %d", d, bucket, before)
		}
		before = bucket
		if bound := upper(bucket); bound <= d || bound > d+1+d/8 {
			t.Fatalf("%d is in bucket %d, whose end is %d", d, bucket, bound)
		}
	}
	for _, d := range []time.Duration{-1, math.MinInt64} {
		if bucket := bucketOf(d); bucket != 0 {
			t.Errorf("%d is in bucket %d", d, bucket)
		}
	}
	if bucket := bucketOf(math.MaxInt64); bucket != buckets-1 {
		t.Errorf("the longest is in bucket %d", bucket)
	}
}

func TestQuantiles(t *testing.T) {
	var h histogram
	for n := range 1000 {
		h.observe(time.Duration(n+1) * time.Microsecond)
	}
	text, err := json.Marshal(Stats{Latency: h.load()})
	must(t, err)
	var s Stats
	if err := json.Unmarshal(text, &s); err != nil || !reflect.DeepEqual(s.Latency, h.load()) || s.Latency.Count() != 1000 {
		t.Fatalf("%s becomes %+v, %v", text, s, err)
	}
	for share, want := range map[float64]time.Duration{0: time.Microsecond, 0.5: 500 * time.Microsecond, 0.99: 990 * time.Microsecond, 1: time.Millisecond} {
		if got := s.Latency.Quantile(share); got < want || got > want+want/8+time.Nanosecond {
			t.Errorf("%v of all are below %s, want %s", share, got, want)
		}
	}
	if got := (Histogram{}).Quantile(0.5); got != 0 {
		t.Errorf("of none: %s", got)
	}
}

func TestRemovedOutlivesItsPager(t *testing.T) {
	dir := t.TempDir()
	r, err := openRemoved(dir, 100*4096, 4096, true)
	must(t, err)
	for _, n := range []uint64{0, 63, 64, 99} {
		if r.has(n*4096) || !r.add(n*4096) || r.add(n*4096) {
			t.Errorf("page %d is not removed once", n)
		}
	}
	must(t, r.close())
	if r, err = openRemoved(dir, 100*4096, 4096, false); err != nil {
		t.Fatal(err)
	}
	for n := range uint64(100) {
		if want := n == 0 || n == 63 || n == 64 || n == 99; r.has(n*4096) != want {
			t.Errorf("page %d is removed: %t", n, !want)
		}
	}
	must(t, r.close())
	if _, err := openRemoved(dir, 200*4096, 4096, false); err == nil {
		t.Error("the file of another memory is taken")
	}
	if r, err = openRemoved(dir, 100*4096, 4096, true); err != nil || r.has(0) {
		t.Errorf("afresh: %v", err)
	}
	must(t, r.close())
}
