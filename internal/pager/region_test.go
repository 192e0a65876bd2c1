//go:build linux

package pager

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

const mib = 1 << 20

func TestTable(t *testing.T) {
	got, err := parseTable([]byte(`[{"base_host_virt_addr":8192,"size":8192,"offset":4096,"page_size":4096,"page_size_kib":4096,"more":true},
		{"base_host_virt_addr":4096,"size":4096,"offset":0,"page_size":4096}]`), mib)
	want := table{PageSize: 4096, Regions: []region{{4096, 4096, 0}, {8192, 8192, 4096}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v, %v", got, err)
	}
	for address, want := range map[uint64]page{4096: {4096, 0}, 8191: {4096, 0}, 8192: {8192, 4096}, 16383: {12288, 8192}} {
		if at, ok := got.page(address); !ok || at != want {
			t.Errorf("address %d is in page %+v, %t, want %+v", address, at, ok, want)
		}
		if at, ok := got.at(want.offset); !ok || at != want {
			t.Errorf("offset %d is of page %+v, %t, want %+v", want.offset, at, ok, want)
		}
	}
	for _, address := range []uint64{0, 4095, 16384, 1 << 63} {
		if at, ok := got.page(address); ok {
			t.Errorf("address %d is in page %+v", address, at)
		}
	}
	if at, ok := got.at(12288); ok || got.end() != 12288 {
		t.Errorf("offset 12288 is of page %+v, the end is %d", at, got.end())
	}
}

func TestPageSizesByVersion(t *testing.T) {
	for text, want := range map[string]uint64{
		``: 4096, `,"page_size":2097152`: hugePage, `,"page_size_kib":4096`: 4096, `,"page_size_kib":4`: 4096, `,"page_size_kib":2048`: hugePage, `,"page_size_kib":2097152`: hugePage,
		`,"page_size":4096,"page_size_kib":4096`: 4096, `,"page_size":8192`: 0, `,"page_size_kib":3`: 0,
	} {
		got, err := parseTable(fmt.Appendf(nil, `[{"base_host_virt_addr":2097152,"size":2097152,"offset":0%s}]`, text), 4*mib)
		if want == 0 && !errors.Is(err, errHandshake) || want > 0 && (err != nil || got.PageSize != want) {
			t.Errorf("%s: pages of %d bytes, %v, want %d", text, got.PageSize, err, want)
		}
	}
}

// hostileTables are refused, each with words.
var hostileTables = map[string]string{
	``:    "JSON",
	`{}`:  "cannot unmarshal",
	`[]`:  "0 regions",
	`[1]`: "cannot unmarshal",
	`[{"base_host_virt_addr":-4096,"size":4096,"offset":0}]`:                                                                              "cannot unmarshal",
	`[{"base_host_virt_addr":4096,"size":4096}]`:                                                                                          "without",
	`[{"base_host_virt_addr":4096,"size":0,"offset":0}]`:                                                                                  "whole pages",
	`[{"base_host_virt_addr":4097,"size":4096,"offset":0}]`:                                                                               "whole pages",
	`[{"base_host_virt_addr":4096,"size":4000,"offset":0}]`:                                                                               "whole pages",
	`[{"base_host_virt_addr":4096,"size":4096,"offset":1}]`:                                                                               "whole pages",
	`[{"base_host_virt_addr":4096,"size":2097152,"offset":0,"page_size":2097152}]`:                                                        "whole pages",
	`[{"base_host_virt_addr":18446744073709547520,"size":8192,"offset":0}]`:                                                               "beyond all addresses",
	`[{"base_host_virt_addr":4096,"size":18446744073709547520,"offset":0}]`:                                                               "beyond all addresses",
	`[{"base_host_virt_addr":4096,"size":2097152,"offset":0}]`:                                                                            "beyond the memory",
	`[{"base_host_virt_addr":4096,"size":4096,"offset":1048576}]`:                                                                         "beyond the memory",
	`[{"base_host_virt_addr":4096,"size":4096,"offset":18446744073709547520}]`:                                                            "beyond the memory",
	`[{"base_host_virt_addr":4096,"size":8192,"offset":0},{"base_host_virt_addr":8192,"size":4096,"offset":8192}]`:                        "overlap",
	`[{"base_host_virt_addr":4096,"size":8192,"offset":0},{"base_host_virt_addr":16384,"size":4096,"offset":4096}]`:                       "same memory",
	`[{"base_host_virt_addr":4096,"size":4096,"offset":0},{"base_host_virt_addr":2097152,"size":2097152,"offset":0,"page_size":2097152}]`: "and of",
}

func TestHostileTables(t *testing.T) {
	for text, want := range hostileTables {
		if got, err := parseTable([]byte(text), mib); !errors.Is(err, errHandshake) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v, want %q", text, got, err, want)
		}
	}
	one := `{"base_host_virt_addr":%d,"size":4096,"offset":%d}`
	for count, refused := range map[int]bool{maxRegions: false, maxRegions + 1: true} {
		var all []string
		for n := range count {
			all = append(all, fmt.Sprintf(one, (n+1)*8192, n*4096))
		}
		if _, err := parseTable([]byte("["+strings.Join(all, ",")+"]"), 16*mib); (err != nil) != refused {
			t.Errorf("%d regions: %v", count, err)
		}
	}
}

func FuzzTable(f *testing.F) {
	for text := range hostileTables {
		f.Add([]byte(text))
	}
	f.Add([]byte(`[{"base_host_virt_addr":8192,"size":8192,"offset":4096,"page_size":4096},{"base_host_virt_addr":4096,"size":4096,"offset":0,"page_size":4096}]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := parseTable(text, mib)
		if err != nil {
			return
		}
		for _, r := range got.Regions {
			for _, address := range []uint64{r.Base, r.Base + r.Size - 1} {
				at, ok := got.page(address)
				back, ok2 := got.at(at.offset)
				if !ok || !ok2 || back != at || at.offset+got.PageSize > mib {
					t.Fatalf("%s: address %#x is in %+v %t, %+v %t", text, address, at, ok, back, ok2)
				}
			}
		}
	})
}
