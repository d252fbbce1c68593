package api

// Mark is how far User has got in the room with Peer. 0: not told of here, or nothing yet.
type Mark struct {
	User      string `json:"u"`
	Peer      string `json:"p"`
	Read      int64  `json:"r,omitempty"`
	Delivered int64  `json:"d,omitempty"`
	Session   string `json:"n,omitempty"` // the session that caused it does not get it
}

// Marks is published on subject.Marks by the replica of history that has moved marks, after its commit, and every second when it moves none. Each one
// begins where the one before of this replica has ended: a hole, or silence, shows that some were lost, and HistoryMarks tells what they were.
type Marks struct {
	Source string `json:"s"` // another one at each start
	From   int64  `json:"f"`
	To     int64  `json:"t"`
	Rows   []Mark `json:"m,omitempty"`
	Ended  bool   `json:"e,omitempty"` // the last one of this source
}

// MarksRequest asks for the marks that moved within the last AgeMS, or for those of some rooms.
type MarksRequest struct {
	AgeMS int64  `json:"age_ms,omitempty"`
	Pairs []Pair `json:"pairs,omitempty"` // at most 1,000
	Cont  string `json:"cont,omitempty"`  // MarksResponse.Cont of the page before
}

// Pair is two users, in any order.
type Pair struct {
	User string `json:"u"`
	Peer string `json:"p"`
}

// MarksResponse has both marks of each row as they are now; those that move meanwhile come again. Cont is "" on the last page.
type MarksResponse struct {
	Rows []Mark `json:"rows"`
	Cont string `json:"cont,omitempty"`
}
