//go:build linux

package main

import (
	"reflect"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
)

func TestParseDrive(t *testing.T) {
	for text, want := range map[string]*microvm.Drive{
		"/a":                          {Path: "/a"},
		"/a,ro":                       {Path: "/a", ReadOnly: true},
		"/a,bps=10M,iops=5,ro":        {Path: "/a", ReadOnly: true, Limit: &microvm.RateLimit{BytesPerSecond: 10 << 20, OpsPerSecond: 5}},
		"/a,bps=1T,bps-burst=3K":      {Path: "/a", Limit: &microvm.RateLimit{BytesPerSecond: 1 << 40, BytesBurst: 3 << 10}},
		"/a,iops=1,iops-burst=2G":     {Path: "/a", Limit: &microvm.RateLimit{OpsPerSecond: 1, OpsBurst: 2 << 30}},
		"/a,":                         nil,
		"/a,rw":                       nil,
		"/a,bps":                      nil,
		"/a,bps=":                     nil,
		"/a,bps=-1":                   nil,
		"/a,bps=M":                    nil,
		"/a,bps=1KM":                  nil,
		"/a,bps=1KK":                  nil,
		"/a,bps=1k":                   nil,
		"/a,bps=1.5M":                 nil,
		"/a,bps=9223372036854775T":    nil,
		"/a,bps=92233720368547758070": nil,
	} {
		got, err := parseDrive(text)
		if want == nil && err == nil || want != nil && (err != nil || !reflect.DeepEqual(got, *want)) {
			t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
		}
	}
}
