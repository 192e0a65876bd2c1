package wire

import "testing"

func TestPartsGrowWithTheStream(t *testing.T) {
	var part []byte
	var sizes []int
	for _, n := range []int{0, 1, firstPart, firstPart, 4 * firstPart, 16 * firstPart, 20000} {
		part = NextPart(part, n, 20000)
		sizes = append(sizes, len(part))
	}
	want := [7]int{firstPart, firstPart, 4 * firstPart, 4 * firstPart, 20000, 20000, 20000}
	if [7]int(sizes) != want {
		t.Errorf("sizes %v, want %v", sizes, want)
	}
}
