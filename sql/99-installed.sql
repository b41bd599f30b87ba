-- Everything is there: from the commit on the conductor may come.
SELECT weir._installed();
